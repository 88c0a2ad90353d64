"""Types, errors, events, clock, machine and settings; imports nothing else of Ondol."""
