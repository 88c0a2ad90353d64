"""Retrieval: keyword and vector rankings, fusion, reranking, calibration, look-ups."""
