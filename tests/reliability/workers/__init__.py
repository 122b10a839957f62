"""A gateway of several processes, of which some die."""
