"""One model library per file, synchronous, at most five methods each.

Knows no HTTP service of ours, no queue, no asyncio and no metric.
"""
