"""The Lightfile6 Insights Gateway: reports and specimens in over HTTP, safe on disk, out to a store exactly once."""
