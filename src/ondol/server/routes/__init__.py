"""The endpoints, one resource per file; each calls one service and shapes its answer."""
