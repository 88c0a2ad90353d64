"""Pure functions on text: reading, normalising, splitting, chunking, keywords, prompts, citations.

Knows no database, no model library but the Korean analyser, no HTTP and no queue. Offsets are
always Python character offsets into a document's stored (normalised) text.
"""
