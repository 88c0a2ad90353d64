"""Vectors that were computed once are not computed again: the cache and its three tiers.

``embedding_cache`` asks ``cache_memory`` first, then the durable tier of the settings: ``cache_sqlite``
or ``cache_redis``. The entries in it are the same bytes in every durable tier.
"""
