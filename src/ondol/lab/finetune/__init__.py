"""Train embedders and rerankers for a field, and judge them before they are kept."""
