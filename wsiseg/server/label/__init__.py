"""The page of `wsiseg label`: what it asks for, and what its keys become."""
