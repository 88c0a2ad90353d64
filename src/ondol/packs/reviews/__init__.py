"""Reviews: the lexicon of what they speak of."""
