"""Tests of the whole program, started as a user starts it, against a real S3 server."""
