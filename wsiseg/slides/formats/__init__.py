"""Which format a file has, who reads it, which companions it needs, and what is refused by name."""
