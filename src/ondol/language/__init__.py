"""Korean and English: words, sentences, synonyms, dictionary, normal forms."""
