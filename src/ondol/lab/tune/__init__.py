"""Which form of a model is fastest on this machine among those that are faithful."""
