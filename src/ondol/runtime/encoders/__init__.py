"""Embedders and rerankers: queue, batches, worker thread, fallback and A/B test."""
