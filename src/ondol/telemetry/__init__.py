"""Watches from the side through core events: metrics, records, logs, traces."""
