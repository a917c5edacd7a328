from time import *

from perdure import *


def nap() -> None:
    sleep(1)  # PDU009
