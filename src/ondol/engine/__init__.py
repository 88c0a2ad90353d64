"""Keeps models busy: admission, queues, policies, batches, and the threads that run backends.

The scheduler decides by pure functions; the worker does. Knows no HTTP, store or prompt.
"""
