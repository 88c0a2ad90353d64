"""Measures quality on labelled questions: retrieval and answers. One file per measurement."""
