"""One use case per file, asynchronous; only ``container`` names concrete classes."""
