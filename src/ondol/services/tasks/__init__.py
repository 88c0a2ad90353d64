"""Declared analyses: packs of tasks, the steps they are made of, and the service that runs one."""
