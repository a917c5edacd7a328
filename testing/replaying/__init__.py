"""Stored histories and states against the code at hand: what a deployment would break."""
