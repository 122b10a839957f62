"""A disk that fails, and a disk that is full."""
