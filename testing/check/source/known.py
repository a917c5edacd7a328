"""What is known of the classes and functions of others: what calling them gives."""

from __future__ import annotations

#: Names of ours that count by themselves, wherever in the package they are imported from.
PERDURE_NAMES = frozenset(
    {
        "ActivityContext",
        "App",
        "Cancelled",
        "Client",
        "EntityContext",
        "EntityId",
        "Hub",
        "OrchestrationContext",
        "RetryPolicy",
        "Task",
        "readonly",
        "commutative",
        "combine",
        "connect",
        "run",
    }
)

#: Classes that do not go by the name of one: in small letters, or in capitals alone.
CLASSES = frozenset(
    {
        "builtins.bytearray",
        "builtins.dict",
        "builtins.frozenset",
        "builtins.set",
        "builtins.str",
        "collections.defaultdict",
        "collections.deque",
        "datetime.date",
        "datetime.datetime",
        "itertools.count",
        "itertools.cycle",
        "ftplib.FTP",
        "ftplib.FTP_TLS",
        "imaplib.IMAP4",
        "imaplib.IMAP4_SSL",
        "poplib.POP3",
        "smtplib.SMTP",
        "smtplib.SMTP_SSL",
        "socket.socket",
        "threading.local",
    }
)

SETS = frozenset({"builtins.set", "builtins.frozenset"})
SET_METHODS = frozenset({"union", "intersection", "difference", "symmetric_difference", "copy"})

#: The built-in class that an abstract one stands for.
CONTEXTS = {
    "typing.Set": "builtins.set",
    "typing.AbstractSet": "builtins.set",
    "typing.MutableSet": "builtins.set",
    "typing.FrozenSet": "builtins.frozenset",
    "collections.abc.Set": "builtins.set",
    "collections.abc.MutableSet": "builtins.set",
    "typing.List": "builtins.list",
    "typing.Sequence": "builtins.list",
    "typing.Iterable": "builtins.list",
    "typing.Iterator": "builtins.list",
    "typing.Collection": "builtins.list",
    "collections.abc.Sequence": "builtins.list",
    "collections.abc.MutableSequence": "builtins.list",
    "collections.abc.Iterable": "builtins.list",
    "collections.abc.Iterator": "builtins.list",
    "collections.abc.Collection": "builtins.list",
    "typing.Tuple": "builtins.tuple",
    "typing.Dict": "builtins.dict",
    "typing.Mapping": "builtins.dict",
    "typing.MutableMapping": "builtins.dict",
    "collections.abc.Mapping": "builtins.dict",
    "collections.abc.MutableMapping": "builtins.dict",
    "collections.defaultdict": "builtins.dict",
    "pathlib.PosixPath": "pathlib.Path",
    "pathlib.WindowsPath": "pathlib.Path",
}

#: Which argument of a generic class its elements are.
ELEMENTS = {
    "builtins.list": 0,
    "builtins.tuple": 0,
    "builtins.set": 0,
    "builtins.frozenset": 0,
    "builtins.dict": 0,
    "collections.deque": 0,
}

#: What gives the function that it is given, or one that calls it.
WRAPPERS = frozenset(
    {
        "functools.partial",
        "functools.cache",
        "functools.lru_cache",
        "functools.partialmethod",
        "builtins.staticmethod",
        "builtins.classmethod",
        "inspect.unwrap",
        "copy.copy",
        "copy.deepcopy",
        "dataclasses.replace",
        "attrs.evolve",
    }
)

#: Methods that give an object of their own class.
SAME_CLASS = {
    "pathlib.Path": frozenset(
        {
            "absolute",
            "cwd",
            "expanduser",
            "home",
            "joinpath",
            "relative_to",
            "resolve",
            "with_name",
            "with_stem",
            "with_suffix",
        }
    ),
}

#: What an attribute is an object of; with brackets, what calling it gives.
RESULTS = {
    "asyncio.get_event_loop()": "asyncio.AbstractEventLoop",
    "asyncio.get_running_loop()": "asyncio.AbstractEventLoop",
    "asyncio.new_event_loop()": "asyncio.AbstractEventLoop",
    "builtins.open()": "io.IOBase",
    "logging.getLogger()": "logging.Logger",
    "numpy.random.default_rng()": "numpy.random.Generator",
    "pathlib.Path.open()": "io.IOBase",
    "pathlib.Path.parent": "pathlib.Path",
    "perdure.App.include()": "perdure.App",
    "perdure.Hub.client": "perdure.Client",
    "perdure.OrchestrationContext.call_activity()": "perdure.Task",
    "perdure.OrchestrationContext.call_entity()": "perdure.Task",
    "perdure.OrchestrationContext.call_sub_orchestrator()": "perdure.Task",
    "perdure.OrchestrationContext.create_task_group()": "perdure.TaskGroup",
    "perdure.OrchestrationContext.create_timer()": "perdure.Task",
    "perdure.OrchestrationContext.lock_entities()": "perdure.EntityLock",
    "perdure.OrchestrationContext.logger": "perdure.Logger",
    "perdure.OrchestrationContext.random": "perdure.Random",
    "perdure.OrchestrationContext.task_all()": "perdure.Task",
    "perdure.OrchestrationContext.task_any()": "perdure.Task",
    "perdure.OrchestrationContext.wait_for_external_event()": "perdure.Task",
    "perdure.connect()": "perdure.Client",
    "concurrent.futures.ThreadPoolExecutor.submit()": "concurrent.futures.Future",
}
