"""From files to chunks in the store: readers, chunking, ingest."""
