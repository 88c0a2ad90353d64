"""Load on a server: what is asked when, the client that asks, and what its times amount to."""
