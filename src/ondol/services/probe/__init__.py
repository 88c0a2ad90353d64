"""One encoder in a process of its own, measured from outside."""
