"""A model of the gateway that a test drives through crashes, faults and clocks, and the account of what it was sent."""
