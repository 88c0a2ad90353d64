"""Which models there are, where their files come from, and the forms they run in."""
