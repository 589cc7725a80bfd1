"""Pixel-wise tissue segmentation of whole-slide images, learned from patch labels alone."""
