"""The HTTP server: routes, schemas, streaming, limits."""
