"""The handle of one orchestration instance."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from ...actors.codec import Codec
from ...actors.errors import InstanceNotFoundError
from .status import HistoryEvent, OrchestrationStatus

if TYPE_CHECKING:
    from ..explanations import InstanceExplanation
    from .client import Client

R_co = TypeVar("R_co", covariant=True)


class OrchestrationHandle(Generic[R_co]):
    """One orchestration instance, as its clients see it.

    Attributes:
        instance_id: its id.
    """

    def __init__(self, client: Client, instance_id: str, codec: Codec[Any] | None) -> None:
        self._client = client
        self._codec = codec
        self.instance_id = instance_id

    def __repr__(self) -> str:
        return f"OrchestrationHandle({self.instance_id!r})"

    async def result(self, timeout: float | timedelta | None = None) -> R_co:
        """Wait for the end, and give the result.

        Args:
            timeout: seconds (or a timedelta) to wait at the most; None waits for ever.

        Raises:
            TimeoutError: it has not ended in time; it goes on.
            OrchestrationFailedError: it failed.
            OrchestrationTerminatedError: it was terminated.
            OrchestrationCanceledError: it was cancelled.
            InstanceNotFoundError: there is no such instance.
        """
        result: R_co = await self._client.wait(self.instance_id, self._codec, timeout)
        return result

    async def status(self) -> OrchestrationStatus:
        """Give its status, as of the last checkpoint.

        Raises:
            InstanceNotFoundError: there is no such instance.
        """
        status = await self._client.get_status(self.instance_id)
        if status is None:
            raise InstanceNotFoundError(self.instance_id)
        return status

    async def raise_event(
        self, name: str, data: Any = None, *, request_id: str | None = None
    ) -> None:
        """Send it an event; durable when this returns. See ``Client.raise_event``."""
        await self._client.raise_event(self.instance_id, name, data, request_id=request_id)

    async def terminate(self, reason: str = "", *, recursive: bool = True) -> None:
        """End it without running its code again. See ``Client.terminate``."""
        await self._client.terminate(self.instance_id, reason, recursive=recursive)

    async def cancel(self, reason: str = "") -> None:
        """Throw ``Cancelled`` into its code, which may clean up. See ``Client.cancel``."""
        await self._client.cancel(self.instance_id, reason)

    async def suspend(self, reason: str = "") -> None:
        """Let it take no turns until it is resumed. See ``Client.suspend``."""
        await self._client.suspend(self.instance_id, reason)

    async def resume(self, reason: str = "") -> None:
        """Let a suspended instance go on. See ``Client.resume``."""
        await self._client.resume(self.instance_id, reason)

    async def retry(self) -> None:
        """Let a parked instance try again. See ``Client.retry``."""
        await self._client.retry(self.instance_id)

    async def rewind(self, reason: str = "", *, force: bool = False) -> None:
        """Take a failed instance back to before its failures. See ``Client.rewind``."""
        await self._client.rewind(self.instance_id, reason, force=force)

    async def restart(
        self, *, with_new_instance_id: bool = True, request_id: str | None = None
    ) -> OrchestrationHandle[R_co]:
        """Start it anew with the same input. See ``Client.restart``."""
        handle = await self._client.restart(
            self.instance_id, with_new_instance_id=with_new_instance_id, request_id=request_id
        )
        return cast("OrchestrationHandle[R_co]", handle)

    async def fork(
        self, *, at: int, instance_id: str | None = None, request_id: str | None = None
    ) -> OrchestrationHandle[R_co]:
        """Start one that begins with its history up to an event. See ``Client.fork``."""
        handle = await self._client.fork(
            self.instance_id, at=at, new_instance_id=instance_id, request_id=request_id
        )
        return cast("OrchestrationHandle[R_co]", handle)

    async def purge(self, *, recursive: bool = True) -> int:
        """Delete it, once it has ended. See ``Client.purge_instance``."""
        return await self._client.purge_instance(self.instance_id, recursive=recursive)

    async def explain(self) -> InstanceExplanation:
        """Say what it waits for, and where its code stands. See ``Client.explain``."""
        return await self._client.explain(self.instance_id)

    async def history(self) -> list[HistoryEvent]:
        """Give the events of its history so far.

        Raises:
            InstanceNotFoundError: there is no such instance.
        """
        return await self._client.get_history(self.instance_id)
