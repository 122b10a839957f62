"""JSON: whether bytes are one document, how a body becomes report lines."""
