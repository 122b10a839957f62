"""A store that fails, and a way to it that fails."""
