"""The places model files come from, one a file, all behind ``base.FileSource``."""
