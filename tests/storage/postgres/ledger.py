"""What has to be in a partition, told by what was committed, acknowledged, refused and read."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define


class Breach(AssertionError):
    """Something acknowledged is not as it has to be."""


@define(eq=False)
class Attempt:
    """A commit that somebody has begun.

    Attributes:
        text: what it has, which no other one has.
        epoch: of the owner.
        sequence: its place.
        outcome: ``begun``, ``acknowledged``, ``refused``, ``unknown``; or ``forgotten``.
    """

    text: str
    epoch: int
    sequence: int
    outcome: str = "begun"


class Ledger:
    """What has to be in one partition, as far as those who commit and read know.

    Attributes:
        known: what is there in any case, in order.
        acknowledged: how many of these nobody may miss.
        excused: the greatest epoch whose owner was robbed, so that it may not know of newer ones.
    """

    def __init__(self, partition: int) -> None:
        self._where = f"partition {partition}"
        self._attempts: dict[str, Attempt] = {}
        self.known: list[str] = []
        self._lost: list[str] = []
        self._epoch = 0
        self.acknowledged = 0
        self.excused = 0

    @property
    def count(self) -> int:
        """How many commits were acknowledged."""
        return sum(one.outcome == "acknowledged" for one in self._attempts.values())

    def begin(self, text: str, epoch: int, sequence: int) -> Attempt:
        """Take note that somebody commits."""
        attempt = self._attempts[text] = Attempt(text, epoch, sequence)
        return attempt

    def acknowledge(self, attempt: Attempt) -> None:
        """Take note of success.

        Raises:
            Breach: there was none.
        """
        place, known = attempt.sequence - 1, self.known
        if attempt.outcome == "forgotten":
            if place == len(known) + len(self._lost):
                self._lost.append(attempt.text)  # of which its owner knows, and may bring it back
            return
        attempt.outcome = "acknowledged"
        if place > len(known) and place == len(known) + len(self._lost):
            known += self._lost  # the same owner has brought it back
        if place < len(known):
            if known[place] != attempt.text:
                self._fail(f"{attempt.text} is acknowledged, and {known[place]} has its place")
        elif place > len(known):
            self._fail(f"{attempt.text} is acknowledged as {place + 1}, behind {len(known)} others")
        elif attempt.epoch < self._epoch:
            self._fail(
                f"{attempt.text} of epoch {attempt.epoch} is acknowledged, and epoch {self._epoch}"
                " has not seen it"
            )
        else:
            known.append(attempt.text)
            self._epoch, self._lost = attempt.epoch, []
        self.acknowledged = max(self.acknowledged, attempt.sequence)

    def refuse(self, attempt: Attempt) -> None:
        """Take note that a commit was said to have stored nothing.

        Raises:
            Breach: it has.
        """
        if attempt.text in self.known:
            self._fail(f"{attempt.text} was refused, and is there")
        attempt.outcome = "refused"

    def recovered(self, content: Sequence[str], epoch: int) -> None:
        """Take note of what somebody has recovered under an epoch.

        Raises:
            Breach: something is missing, or there that must not be.
        """
        known = self.known
        if epoch < self._epoch:
            if [*content] != known[: len(content)]:
                self._fail(f"epoch {epoch} has read {content}, and there is {known}")
            return
        if [*content[: len(known)]] != known:
            self._fail(f"epoch {epoch} has read {content}, and there has to be {known}")
        for place, text in enumerate(content[len(known) :], len(known) + 1):
            attempt = self._attempts.get(text)
            if attempt is None or attempt.sequence != place or text in content[: place - 1]:
                self._fail(f"epoch {epoch} has read {content}, and {text} at {place}")
            elif attempt.outcome not in ("begun", "unknown", "forgotten"):
                self._fail(f"epoch {epoch} has read {text}, which was {attempt.outcome}")
            known.append(text)
        self._epoch, self._lost = epoch, []

    def answered(self, content: Sequence[str], epoch: int) -> None:
        """Take note of what an owner has answered by the read rule.

        Raises:
            Breach: it is older than something acknowledged.
        """
        if epoch <= self.excused:
            return
        must = self.known[: self.acknowledged]
        if [*content[: len(must)]] != must:
            self._fail(f"the owner of epoch {epoch} has answered {content}, after {must}")

    def forget(self, texts: Sequence[str], left: int, epoch: int) -> None:
        """Take note that the server has lost its last entries, by no fault of the members.

        Args:
            texts: what it has lost.
            left: how many it has not.
            epoch: the latest that anybody has.
        """
        for text in (*texts, *self.known[left:]):
            self._attempts[text].outcome = "forgotten"
        self._lost = self.known[left:] or self._lost
        del self.known[left:]
        self.acknowledged = min(self.acknowledged, left)
        self.excused = max(self.excused, epoch)

    def _fail(self, why: str) -> None:
        raise Breach(f"{self._where}: {why}")
