"""The same loads on other durable frameworks, side by side: ``python -m benchmarks.peers``."""
