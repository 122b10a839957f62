"""JSON: whether bytes are one document, how a body becomes report lines, and the envelope around a report."""
