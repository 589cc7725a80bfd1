"""Exact outlines, row by row: corners, chains, pieces in a file, rings."""
