"""Words every other room shares: types, errors, settings, observation, time, the machine.

Imports nothing else of Ondol.
"""
