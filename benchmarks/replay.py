from .bench import Bench
from .figures import Outcome
async def measure_replay(bench: Bench) -> Outcome:
    return Outcome()
