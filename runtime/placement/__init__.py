"""Which partition an actor lives in, and what is said to a partition wherever it is.

Imports the scheduling.
"""
