"""Tasks measured on labelled items: what goes in, what is run beside it, what each result is worth."""
