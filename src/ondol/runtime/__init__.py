"""Keeps loaded models busy: slots, queues, batches, lanes, pressure."""
