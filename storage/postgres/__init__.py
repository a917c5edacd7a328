"""A hub in a schema of PostgreSQL, which several processes serve together."""

from .store import PostgresStore

__all__ = ["PostgresStore"]
