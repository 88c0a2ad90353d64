"""The generator: lanes, admission, order of requests, streaming."""
