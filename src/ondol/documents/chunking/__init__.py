"""How a text is cut into chunks, and under which words a chunk is indexed."""
