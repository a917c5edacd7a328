"""Virtual actors with durable state: entities, orchestrations and activities that survive crashes.

See the README for a tour and ``docs/guarantees.md`` for what is promised.

Names alone: what stands behind one is imported when it is first used, so that a program pays for
what it needs of the package.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._connect import connect
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
        ForkError,
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
    from .actors.replay.locks import EntityLock
    from .actors.replay.scopes import CancelScope, TaskGroup
    from .actors.replay.tasks import Task
    from .actors.retry import RetryPolicy
    from .actors.tracing import OperationFacts, StartFacts
    from .actors.values import MISSING, RuntimeStatus
    from .runtime.client.changes import Change
    from .runtime.client.client import (
        CleanResult,
        Client,
        EntityConditions,
        InstanceConditions,
        PurgeConditions,
    )
    from .runtime.client.handle import OrchestrationHandle
    from .runtime.client.nodes import read_nodes
    from .runtime.client.pages import HistoryPage, Page
    from .runtime.client.remote import HubView, watch_hub
    from .runtime.client.status import (
        AppDescription,
        EntityStatus,
        HistoryEvent,
        OrchestrationStatus,
    )
    from .runtime.cluster.balancer import Rebalance
    from .runtime.explanations import (
        AskedLock,
        AwaitedEvent,
        EntityExplanation,
        InstanceExplanation,
        PendingActivity,
        PendingChild,
        PendingEntityCall,
        PendingTimer,
        RunningOperation,
        SourceFunction,
        SourceLine,
        Trace,
        TraceStep,
        Waited,
        WaitingBranch,
    )
    from .runtime.facts import ParkedReason
    from .runtime.hub import Hub
    from .runtime.migrations import MigrationStatus
    from .runtime.nodes import HubNodes, NodePartition, NodeStatus
    from .runtime.observer import (
        ActivityFacts,
        CheckpointFacts,
        Observer,
        TraceObserver,
        TurnFacts,
        WorkFacts,
    )
    from .runtime.program import run
    from .runtime.scheduling.clock import Clock, ManualClock, SystemClock
    from .runtime.scheduling.interpreter import tune
    from .runtime.settings import Settings
    from .runtime.statistics import (
        ActivityStatistics,
        Durations,
        HubStatistics,
        MembershipStatistics,
        PartitionStatistics,
        ShardStatistics,
        SilentShard,
    )
    from .runtime.stopped_hub import read_store
    from .storage import MemoryStore, SharedStore, Store
    from .storage.postgres import PostgresStore
    from .storage.sqlite import SqliteStore

__version__ = "0.1.0"

__all__ = [
    "MISSING",
    "ActivityContext",
    "ActivityError",
    "ActivityFacts",
    "ActivityStatistics",
    "App",
    "AppDescription",
    "AskedLock",
    "AwaitedEvent",
    "CancelScope",
    "Cancelled",
    "Change",
    "CheckpointFacts",
    "CleanResult",
    "Client",
    "Clock",
    "Durations",
    "EntityConditions",
    "EntityContext",
    "EntityExplanation",
    "EntityId",
    "EntityLock",
    "EntityOperationError",
    "EntityStatus",
    "EventDataError",
    "FailedError",
    "FailureDetails",
    "ForkError",
    "HistoryEvent",
    "HistoryPage",
    "Hub",
    "HubNodes",
    "HubStatistics",
    "HubStoppingError",
    "HubView",
    "InstanceAlreadyExistsError",
    "InstanceConditions",
    "InstanceExplanation",
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
    "MembershipStatistics",
    "MemoryStore",
    "MigrationStatus",
    "NodePartition",
    "NodeStatus",
    "NonDurableAwaitError",
    "NonRetryableError",
    "NondeterminismError",
    "Observer",
    "OperationFacts",
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
    "PendingActivity",
    "PendingChild",
    "PendingEntityCall",
    "PendingTimer",
    "PerdureError",
    "PostgresStore",
    "PurgeConditions",
    "Rebalance",
    "RegistrationError",
    "RequestIdReusedError",
    "RetryPolicy",
    "RewindError",
    "RunningOperation",
    "RuntimeStatus",
    "Settings",
    "ShardStatistics",
    "SharedStore",
    "SilentShard",
    "SourceFunction",
    "SourceLine",
    "SqliteStore",
    "StartFacts",
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
    "Trace",
    "TraceObserver",
    "TraceStep",
    "TurnFacts",
    "UnavailableError",
    "UnknownNameError",
    "UsageError",
    "Waited",
    "WaitingBranch",
    "WorkFacts",
    "__version__",
    "combine",
    "commutative",
    "connect",
    "read_nodes",
    "read_store",
    "readonly",
    "run",
    "tune",
    "watch_hub",
]

# Where the names stand; those that are not here are errors.
_HOMES = {
    name: home
    for home, names in (
        ("._connect", "connect"),
        (".actors.contexts.activity", "ActivityContext"),
        (".actors.contexts.entity", "EntityContext"),
        (".actors.contexts.marks", "combine commutative readonly"),
        (".actors.contexts.orchestration", "OrchestrationContext"),
        (".actors.ids", "EntityId"),
        (".actors.registry.app", "App"),
        (".actors.replay.scopes", "CancelScope TaskGroup"),
        (".actors.replay.locks", "EntityLock"),
        (".actors.replay.tasks", "Task"),
        (".actors.retry", "RetryPolicy"),
        (".actors.tracing", "OperationFacts StartFacts"),
        (".actors.values", "MISSING RuntimeStatus"),
        (".runtime.client.changes", "Change"),
        (
            ".runtime.client.client",
            "CleanResult Client EntityConditions InstanceConditions PurgeConditions",
        ),
        (".runtime.client.handle", "OrchestrationHandle"),
        (".runtime.client.nodes", "read_nodes"),
        (".runtime.client.pages", "HistoryPage Page"),
        (".runtime.client.remote", "HubView watch_hub"),
        (
            ".runtime.client.status",
            "AppDescription EntityStatus HistoryEvent OrchestrationStatus",
        ),
        (".runtime.cluster.balancer", "Rebalance"),
        (
            ".runtime.explanations",
            "AskedLock AwaitedEvent EntityExplanation InstanceExplanation PendingActivity "
            "PendingChild PendingEntityCall PendingTimer RunningOperation SourceFunction "
            "SourceLine Trace TraceStep Waited WaitingBranch",
        ),
        (".runtime.facts", "ParkedReason"),
        (".runtime.migrations", "MigrationStatus"),
        (".runtime.nodes", "HubNodes NodePartition NodeStatus"),
        (
            ".runtime.observer",
            "ActivityFacts CheckpointFacts Observer TraceObserver TurnFacts WorkFacts",
        ),
        (".runtime.hub", "Hub"),
        (".runtime.program", "run"),
        (".runtime.stopped_hub", "read_store"),
        (".runtime.scheduling.clock", "Clock ManualClock SystemClock"),
        (".runtime.scheduling.interpreter", "tune"),
        (".runtime.settings", "Settings"),
        (
            ".runtime.statistics",
            "ActivityStatistics Durations HubStatistics MembershipStatistics PartitionStatistics "
            "ShardStatistics SilentShard",
        ),
        (".storage.memory", "MemoryStore"),
        (".storage.protocol", "SharedStore Store"),
        (".storage.postgres", "PostgresStore"),
        (".storage.sqlite", "SqliteStore"),
    )
    for name in names.split()
}
_ROOMS = frozenset({"actors", "runtime", "storage"})

# Type checkers go by the imports above, and would believe in any name if they saw this.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in __all__:
            home = import_module(_HOMES.get(name, ".actors.errors"), __name__)
            globals()[name] = value = getattr(home, name)  # so that it is asked for once
            return value
        if name in _ROOMS:
            for public in _HOMES:  # after which there is all in the room that `import` once brought
                __getattr__(public)
            return sys.modules[f"{__name__}.{name}"]
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}",
            name=name,
            obj=sys.modules[__name__],
        )

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
