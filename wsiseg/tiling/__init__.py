"""Where patches and pieces lie, how they are read, and how overlapping ones are weighed. No torch."""
