"""Authentication: which user sends a request."""
