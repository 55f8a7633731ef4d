"""A posterior of one encoder on the next: the compatibility table."""
