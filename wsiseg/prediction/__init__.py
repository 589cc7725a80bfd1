"""A slide becomes a map: plan, stream, commit, and what is kept for a run that dies."""
