"""Runnable applications: ``python -m examples.NAME`` from the top of the repository."""
