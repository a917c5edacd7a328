import os

FAST = os.environ.get("FAST") == "1"
SLOW = False
CACHE: dict[str, int] = {}


def put(name: str) -> None:
    CACHE[name] = 1
