"""The static check: source text in, findings out; it never runs the code that it looks at."""
