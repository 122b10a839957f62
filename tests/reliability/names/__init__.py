"""Names, keys and clocks."""
