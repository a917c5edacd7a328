"""The person who decides: looks at what waits for review and answers, in the demo's own process.

What waits is asked of the hub and not remembered, so a reviewer who died with the process finds
the same pile after the restart. The answer's request id makes answering twice harmless.
"""

from __future__ import annotations

from collections import deque

from perdure import Client, InstanceFinishedError

from .models import Decision, Issue, Stage


def decide(issues: list[Issue]) -> Decision | None:
    """Decide about a document by its issues; None leaves it to somebody else.

    Secrets are the security officer's, who is not in today: those documents time out.
    """
    counts = {issue.rule: issue.count for issue in issues}
    if "secret" in counts:
        return None
    if "forbidden word" in counts:
        return Decision(False, "Robin", "the wording")
    if counts.get("address", 0) >= 3:
        return Decision(False, "Robin", f"{counts['address']} personal addresses")
    return Decision(True, "Robin", "harmless: " + (", ".join(sorted(counts)) or "odd characters"))


class Reviewer:
    """Answers what waits.

    Attributes:
        latest: the last decisions: document and decision.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._answered: set[str] = set()
        self.latest: deque[tuple[str, Decision]] = deque(maxlen=8)

    async def answer(self, instance_id: str, stage: Stage) -> None:
        """Decide about one document that waits, once."""
        if instance_id in self._answered:
            return
        self._answered.add(instance_id)
        decision = decide(stage.issues)
        if decision is None:
            return
        try:
            await self._client.raise_event(
                instance_id, "documentApproval", decision, request_id=f"decision-{instance_id}"
            )
        except InstanceFinishedError:
            return  # answered before a restart
        self.latest.append((stage.document_id, decision))
