"""``ondol tune``: measures how a model runs best on this machine, and writes it down."""
