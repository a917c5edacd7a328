from uuid import uuid4


def fresh() -> str:
    return uuid4().hex  # PDU003
