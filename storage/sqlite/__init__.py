"""The SQLite store: a folder with two files for each partition."""

from .store import SqliteStore, Synchronous

__all__ = ["SqliteStore", "Synchronous"]
