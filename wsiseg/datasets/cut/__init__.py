"""Patches and labels made of what people have: images with masks, with cell dots, or with labels of their own."""
