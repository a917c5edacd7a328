from .bench import Bench
from .figures import Outcome
async def measure_growth(bench: Bench) -> Outcome:
    return Outcome()
