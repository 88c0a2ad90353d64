"""Puts the parts together: the only room that knows what all the others bring."""
