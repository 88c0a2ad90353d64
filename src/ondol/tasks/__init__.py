"""Declared analyses: packs, their steps, and the service that runs one."""
