"""Keeps models busy: what stands between the services and the backends that run models.

Knows no HTTP, document or prompt.
"""
