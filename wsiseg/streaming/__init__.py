"""The streaming loop: patches read, gated, segmented and summed into pieces of the map."""
