"""The benchmark suite: ``perdure bench`` and ``python -m benchmarks``. See the README beside it."""
