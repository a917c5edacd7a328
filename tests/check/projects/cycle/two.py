import random

import one


def count(n: int) -> int:
    return one.again(n) if n else random.randrange(3)  # PDU002
