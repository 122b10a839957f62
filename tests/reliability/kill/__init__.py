"""SIGKILL at every call."""
