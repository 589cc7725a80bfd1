"""TIFFs of any layout: their pages, images, levels and tiles, and how tiles become colours."""
