"""Requests of clients that bear an id: each is applied once, whoever repeats it.

Invariants:

* From the moment that one is looked up until its outcome is durable, whoever repeats it waits for
  the same outcome, and is told it, or that nothing happened.
* An id belongs to one request for as long as it is remembered: another one is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any

from ...actors.errors import RequestIdReusedError, StoreDamagedError, UnavailableError
from ...actors.printing import text_of
from ...storage.records import RequestRow
from ..placement.claims import Recorded, Repetitions, body_of, check_claim, id_of, read_recorded
from ..placement.places import MovedError

if TYPE_CHECKING:
    from ...actors.registry.lookup import Lookup
    from ..scheduling.waiter import Waiter
    from .ledger import Ledger

#: Claims on request ids that are found without asking the store; they may not be stored yet.
_CLAIMS_MAX = 10_000

#: What those get who repeat a request whose first caller gave it up before it was taken in.
UNTRIED = object()


class Requests:
    """The request ids of one partition.

    Args:
        place: what the store calls itself in errors.
        read: reads what is stored under an id.
        ledger: takes what is to be remembered.
        lookup: finds what a request is for.
        steady: tells a time that setting the clock does not move.
        new_waiter: makes a place for one outcome.
    """

    def __init__(
        self,
        place: str,
        *,
        read: Callable[[str], Awaitable[RequestRow | None]],
        ledger: Ledger,
        lookup: Lookup,
        steady: Callable[[], int],
        new_waiter: Callable[[], Waiter],
    ) -> None:
        self._place = place
        self._read = read
        self._ledger = ledger
        self._lookup = lookup
        self._steady = steady
        self._new_waiter = new_waiter
        #: Those under way, each with who repeats it.
        self.under_way: dict[str, Repetitions] = {}
        #: The last claims on ids whose targets are in other partitions; some are not stored yet.
        self._claims: dict[str, str] = {}

    def _repetition(self, request: str, claim: str) -> Waiter | None:
        """Give the place of a repetition of what is under way; the first is registered as such."""
        made = self.under_way.get(request)
        if made is None:
            check_claim(self._claims.get(request, request), claim, self._lookup)
            # Before anything is read, so that a repetition finds it.
            self.under_way[request] = Repetitions(claim)
            return None
        check_claim(made.claim, claim, self._lookup)
        waiter = self._new_waiter()
        made.append(waiter)
        return waiter

    async def outcome_of_first(self, request: str, claim: str) -> Any:
        """Wait for the outcome of a request of that id that is under way.

        Returns:
            ``UNTRIED`` if none is, or none has come so far as to be tried: then this one is it.
        """
        while (waiter := self._repetition(request, claim)) is not None:
            try:
                outcome = await waiter
            finally:
                del waiter  # has the error, if it is one, which leads here by its traceback
            if outcome is not UNTRIED:
                return outcome
        return UNTRIED

    def expect(self, request: str, claim: str) -> None:
        """Know a request as under way, also where a recovery has forgotten it meanwhile."""
        self.under_way.setdefault(request, Repetitions(claim))

    async def recorded(self, request: str, claim: str) -> Recorded | None:
        """Read what is stored under a request id.

        Raises:
            RequestIdReusedError: another request has the id.
            StoreDamagedError: nobody can read it.
        """
        stored = await self._read(request)
        if stored is None:
            return None
        recorded = read_recorded(stored.body, self._place, request)
        check_claim(recorded.claim, claim, self._lookup)
        return recorded

    async def claim(self, request: str, claim: str, may_store: Callable[[], bool]) -> None:
        """Keep a request id for a request whose target is in another partition.

        Raises:
            RequestIdReusedError: another request has the id.
        """
        for known in (self.under_way.get(request), self._claims.get(request)):
            if known is not None:
                made = known if isinstance(known, str) else known.claim
                check_claim(made, claim, self._lookup)
        # Before the read, so that another one finds it. Who repeats it reads as well: the first
        # may give up, or fail.
        self._claims[request] = claim
        while len(self._claims) > _CLAIMS_MAX:
            del self._claims[next(iter(self._claims))]
        try:
            stored = await self.recorded(request, claim)
        except BaseException:
            self._claims.pop(request, None)
            raise
        check_claim(self._claims.setdefault(request, claim), claim, self._lookup)
        if stored is None and may_store():
            self._remember(request, body_of(b"claim", b"null", claim))
            self._ledger.gathered()

    def record(self, claim: str, kind: bytes, value: bytes, outcome: Any) -> None:
        """Store an answer with the batch that gathers; who repeats it is told then."""
        request = id_of(claim)
        self._remember(request, body_of(kind, value, claim))
        self._ledger.batch.answered.append((request, outcome))

    def _remember(self, request: str, body: bytes) -> None:
        self._ledger.batch.requests.append(RequestRow(request, self._steady(), body))

    def forget_stored_claims(self) -> None:
        """Let go of the claims in memory, all of which are stored."""
        self._claims.clear()

    def tell(self, request: str, outcome: Any) -> None:
        """Give those who repeated a request meanwhile the same outcome."""
        for waiter in self.under_way.pop(request, ()):
            if isinstance(outcome, BaseException):
                waiter.fail(outcome)
            else:
                waiter.set(outcome)

    def refuse(self, request: str, error: BaseException) -> None:
        """Tell those who repeated a request meanwhile that it was not taken in.

        Where its caller alone has gone, one of them has to take his place.
        """
        if not isinstance(error, Exception):
            self.tell(request, UNTRIED)
            return
        if not isinstance(error, (MovedError, RequestIdReusedError, StoreDamagedError)):
            error = UnavailableError(f"not taken in: {text_of(error)}")
        self.tell(request, error)

    def fail_waiting(self, error: Exception) -> None:
        """Have nobody wait any longer; the requests stay under way."""
        for waiters in self.under_way.values():
            for waiter in waiters:
                waiter.fail(error)
            waiters.clear()

    def fail(self, error: Exception, spared: Collection[str] = ()) -> None:
        """Forget all but some that go on, and tell those who repeated them."""
        under_way, self.under_way = self.under_way, {}
        for request, waiters in under_way.items():
            if request in spared:
                self.under_way[request] = waiters
            else:
                for waiter in waiters:
                    waiter.fail(error)
