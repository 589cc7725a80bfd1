"""What `wsiseg view` shows: slides and their maps as tiles, what lies at a place, and corrections drawn by hand."""
