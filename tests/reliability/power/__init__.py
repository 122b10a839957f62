"""Power cuts: every state that a disk may be left in."""
