"""Two stages: a classifier, pseudo masks, a segmenter; and the bundle that comes of it."""
