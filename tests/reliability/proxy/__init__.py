"""A proxy in front of a real S3 server that makes faults on purpose; what it lets through, it lets through byte for byte."""
