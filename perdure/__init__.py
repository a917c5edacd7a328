"""Virtual actors with durable state: entities, orchestrations and activities that survive crashes.

See the README for a tour and ``docs/guarantees.md`` for what is promised.
"""

from .actors.contexts.activity import ActivityContext
from .actors.contexts.entity import EntityContext
from .actors.contexts.marks import combine, commutative, readonly
from .actors.contexts.orchestration import OrchestrationContext
from .actors.errors import (
    ActivityError,
    Cancelled,
    EntityOperationError,
    EventDataError,
    FailedError,
    FailureDetails,
    HubStoppingError,
    InstanceAlreadyExistsError,
    InstanceFinishedError,
    InstanceNotFinishedError,
    InstanceNotFoundError,
    InternalError,
    InvalidIdError,
    InvalidTimeError,
    LeaseLostError,
    LockRuleError,
    MailboxFullError,
    NondeterminismError,
    NonDurableAwaitError,
    NonRetryableError,
    OrchestrationCanceledError,
    OrchestrationFailedError,
    OrchestrationTerminatedError,
    OutcomeUnknownError,
    ParkedError,
    PayloadError,
    PayloadTooLargeError,
    PerdureError,
    RegistrationError,
    RequestIdReusedError,
    RewindError,
    StorageError,
    StoreDamagedError,
    StoreFullError,
    StoreInUseError,
    StoreMovedError,
    StoreReadOnlyError,
    StoreVersionError,
    SubOrchestrationError,
    UnavailableError,
    UnknownNameError,
    UsageError,
)
from .actors.ids import EntityId
from .actors.registry.app import App
from .actors.replay.scopes import CancelScope, TaskGroup
from .actors.replay.tasks import EntityLock, Task
from .actors.retry import RetryPolicy
from .actors.values import MISSING, RuntimeStatus
from .runtime.client.client import CleanResult, Client
from .runtime.client.handle import OrchestrationHandle
from .runtime.client.pages import Page
from .runtime.client.remote import HubView, connect, watch_hub
from .runtime.client.status import EntityStatus, HistoryEvent, OrchestrationStatus, ParkedReason
from .runtime.cluster.balancer import Rebalance
from .runtime.hub import Hub
from .runtime.program import run
from .runtime.scheduling.clock import Clock, ManualClock, SystemClock
from .runtime.scheduling.interpreter import tune
from .runtime.settings import Settings
from .runtime.statistics import HubStatistics, PartitionStatistics, ShardStatistics, SilentShard
from .storage import MemoryStore, SharedStore, SqliteStore, Store

__version__ = "0.1.0"

__all__ = [
    "MISSING",
    "ActivityContext",
    "ActivityError",
    "App",
    "CancelScope",
    "Cancelled",
    "CleanResult",
    "Client",
    "Clock",
    "EntityContext",
    "EntityId",
    "EntityLock",
    "EntityOperationError",
    "EntityStatus",
    "EventDataError",
    "FailedError",
    "FailureDetails",
    "HistoryEvent",
    "Hub",
    "HubStatistics",
    "HubStoppingError",
    "HubView",
    "InstanceAlreadyExistsError",
    "InstanceFinishedError",
    "InstanceNotFinishedError",
    "InstanceNotFoundError",
    "InternalError",
    "InvalidIdError",
    "InvalidTimeError",
    "LeaseLostError",
    "LockRuleError",
    "MailboxFullError",
    "ManualClock",
    "MemoryStore",
    "NonDurableAwaitError",
    "NonRetryableError",
    "NondeterminismError",
    "OrchestrationCanceledError",
    "OrchestrationContext",
    "OrchestrationFailedError",
    "OrchestrationHandle",
    "OrchestrationStatus",
    "OrchestrationTerminatedError",
    "OutcomeUnknownError",
    "Page",
    "ParkedError",
    "ParkedReason",
    "PartitionStatistics",
    "PayloadError",
    "PayloadTooLargeError",
    "PerdureError",
    "Rebalance",
    "RegistrationError",
    "RequestIdReusedError",
    "RetryPolicy",
    "RewindError",
    "RuntimeStatus",
    "Settings",
    "ShardStatistics",
    "SharedStore",
    "SilentShard",
    "SqliteStore",
    "StorageError",
    "Store",
    "StoreDamagedError",
    "StoreFullError",
    "StoreInUseError",
    "StoreMovedError",
    "StoreReadOnlyError",
    "StoreVersionError",
    "SubOrchestrationError",
    "SystemClock",
    "Task",
    "TaskGroup",
    "UnavailableError",
    "UnknownNameError",
    "UsageError",
    "__version__",
    "combine",
    "commutative",
    "connect",
    "readonly",
    "run",
    "tune",
    "watch_hub",
]
