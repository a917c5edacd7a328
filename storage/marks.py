"""That a hub is on its way from one store to another, as both of them say it."""

from __future__ import annotations

import shlex
from typing import Final

from attrs import frozen

from ..actors.errors import StoreMovedError

COMING: Final = "coming"
"""The store is being filled with a hub that is valid elsewhere."""
HERE: Final = "here"
"""The hub has come to this store, and is valid here."""
LEAVING: Final = "leaving"
"""Another store has all of the hub, and is about to be the valid one."""
GONE: Final = "gone"
"""The hub is valid elsewhere."""
MOVING: Final = "moving"
"""The hub goes elsewhere while it serves: another store says which of its partitions it has."""


@frozen
class Mark:
    """What a store says of a hub that moves.

    Attributes:
        state: one of those above.
        token: the same at both ends, and for no other migration.
        place: the other end, without a password.
    """

    state: str
    token: str
    place: str

    def refuse(self, here: str, token: str | None = None) -> None:
        """Refuse to open the store, unless its hub is valid there.

        Args:
            here: the store.
            token: of the migration whose own process asks, which serves the hub meanwhile.

        Raises:
            StoreMovedError: it is not.
        """
        if self.state != HERE and (token != self.token or self.state not in (COMING, MOVING)):
            raise StoreMovedError(self.words(here))

    def words(self, here: str) -> str:
        """Say where the hub is, and what to do."""
        if self.state == GONE:
            return f"the hub of {here} has moved to {self.place}: open it there"
        if self.state == MOVING:
            how = "as before" if here.startswith("sqlite:") else "on the same host"
            return (
                f"the hub of {here} is being moved to {self.place} while it serves, and has "
                f"partitions in both: serve it {how}, or finish it while it stands still with: "
                f"{command(here, self.place)}"
            )
        if self.state == COMING:
            return (
                f"the hub of {self.place} is being moved to {here}: a process that serves it "
                "meanwhile lets others in when it stops, and where none does, finish the move with: "
                f"{command(self.place, here)}"
            )
        return (
            f"the hub of {here} is being moved to {self.place}, and that has not ended: finish it "
            f"with: {command(here, self.place)}"
        )


def command(source: str, target: str) -> str:
    """Give the command that moves a hub."""
    return shlex.join(["perdure", "migrate", source, target])
