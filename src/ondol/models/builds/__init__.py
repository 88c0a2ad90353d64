"""Programs that are compiled on this machine for its own processor, when the user asks for it."""
