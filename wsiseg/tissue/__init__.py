"""Where the tissue is, and what of it is white."""
