"""Durable jobs: many items of one task, leased, worked and kept one row a result."""
