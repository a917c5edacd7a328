from .bench import Bench
from .figures import Outcome
async def measure_memory(bench: Bench) -> Outcome:
    return Outcome()
