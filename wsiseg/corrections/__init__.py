"""What a person corrected on a map, or drew on a slide, as training data: patch labels and pixel masks."""
