import time


def stamp() -> float:
    return time.time()  # PDU001


def unused() -> float:
    return time.monotonic()
