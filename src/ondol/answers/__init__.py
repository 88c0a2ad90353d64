"""Answers with citations: select sentences, prompt, generate, verify quotes against the passages."""
