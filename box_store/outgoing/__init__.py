"""Labels and guesses on their way to other programs and to people: one module a form."""
