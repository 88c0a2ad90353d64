"""Measure one form in a process of its own: speed, memory, energy, fidelity."""
