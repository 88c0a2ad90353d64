"""Watches from the side through ``core.observe``; nothing here is on a request's path."""
