"""The clock, chance, and what a process is told by its surroundings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import ClassVar

from ..source.values import ExternalObject
from ..source.visit import Visit
from .outside import Outside, OutsideRule, global_value, table
from .rule import Found, shown

_NOW = "use `ctx.current_utc_datetime`"
_ENTITY_NOW = "use `ctx.current_utc_datetime` of a parameter `ctx: EntityContext`"
_CLOCK = Outside("reads the clock", _NOW, _ENTITY_NOW)
_CLOCK_UNLESS_GIVEN = Outside("reads the clock", _NOW, _ENTITY_NOW, unless_given=1)

_RANDOM = "use `ctx.random`, which is seeded by the instance"
_ENTITY_GIVEN = "pass it in with the operation's input"
_CHANCE = Outside("gives another number {again}", _RANDOM, _ENTITY_GIVEN)
_UNSEEDED = Outside("gives other numbers {again}", _RANDOM, _ENTITY_GIVEN, unless_given=1)
#: A source of numbers that a whole module has, seeded or not, has no order that a replay meets again.
_SOURCES = frozenset({"random.Random", "numpy.random.Generator", "numpy.random.RandomState"})
_UUID = Outside("gives another id {again}", "use `ctx.new_uuid()`", _ENTITY_GIVEN)

_ENVIRONMENT = Outside(
    "may be different {again}",
    "pass it in with the input, or have an activity give it",
    "pass it in with the operation's input",
    by_name=True,
    is_whole=True,
)
_MACHINE = Outside(
    "may be different {again}",
    "have an activity give it",
    "pass it in with the operation's input",
)


class Clock(OutsideRule):
    """The time of day, and every other clock of the machine."""

    code = "PDU001"
    title = "The clock is read"
    at_import = True
    names: ClassVar = {
        **table("now utcnow today", _CLOCK, "datetime.datetime."),
        "datetime.date.today": _CLOCK,
        **table(
            "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time "
            "process_time_ns thread_time thread_time_ns clock_gettime clock_gettime_ns",
            _CLOCK,
            "time.",
        ),
        **table("localtime gmtime ctime asctime", _CLOCK_UNLESS_GIVEN, "time."),
        "time.strftime": Outside("reads the clock", _NOW, _ENTITY_NOW, unless_given=2),
        "os.times": _CLOCK,
        "anyio.current_time": _CLOCK,
        "trio.current_time": _CLOCK,
        "asyncio.AbstractEventLoop.time": _CLOCK,
        "django.utils.timezone.now": _CLOCK,
        "django.utils.timezone.localtime": _CLOCK_UNLESS_GIVEN,
        **table("now today utcnow", _CLOCK, "pendulum."),
        **table("now utcnow", _CLOCK, "arrow."),
        "arrow.get": _CLOCK_UNLESS_GIVEN,
        **table("now today", _CLOCK, "pandas.Timestamp."),
        **table("now", _CLOCK, "whenever.Instant."),
        "freezegun.api.FakeDatetime.now": _CLOCK,
    }


class Chance(OutsideRule):
    """Random numbers."""

    code = "PDU002"
    title = "Random numbers are not the instance's own"
    at_import = True
    names: ClassVar = {
        **table(
            "random randint randrange randbytes choice choices shuffle sample uniform triangular "
            "gauss normalvariate lognormvariate expovariate vonmisesvariate gammavariate "
            "betavariate paretovariate weibullvariate binomialvariate getrandbits seed setstate "
            "getstate",
            _CHANCE,
            "random.",
        ),
        "random.Random": _UNSEEDED,
        "random.SystemRandom": Outside(
            "gives other numbers {again}", _RANDOM, _ENTITY_GIVEN, is_whole=True
        ),
        **table("urandom getrandom", _CHANCE, "os."),
        "secrets": Outside(
            "gives another secret {again}",
            "have an activity make it",
            _ENTITY_GIVEN,
            is_whole=True,
        ),
        **table(
            "rand randn randint random random_sample choice shuffle permutation normal uniform "
            "seed exponential poisson binomial beta gamma bytes standard_normal",
            _CHANCE,
            "numpy.random.",
        ),
        **table("default_rng RandomState", _UNSEEDED, "numpy.random."),
        **table("rand randn randint randperm normal manual_seed", _CHANCE, "torch."),
    }

    def check(self, visit: Visit) -> Iterator[Found]:
        yield from super().check(visit)
        for node in visit.of(ast.Attribute) if visit.kind == "orchestration" else ():
            if global_value(visit, node.value) is not None and any(
                isinstance(value, ExternalObject) and value.name in _SOURCES
                for value in visit.values(node.value)
            ):
                what = f"{shown(node.value)} gives all instances numbers in turn"
                yield Found(node.value, what, _RANDOM)

    def find(self, name: str) -> Outside | None:
        # What compares secrets decides nothing by chance.
        return None if name == "secrets.compare_digest" else super().find(name)


class Uuids(OutsideRule):
    """Ids that are made of the clock or of chance."""

    code = "PDU003"
    title = "An id is made of the clock or by chance"
    at_import = True
    names: ClassVar = {
        **table("uuid1 uuid4 uuid6 uuid7 getnode", _UUID, "uuid."),
        **table("uuid8", Outside(_UUID.verb, _UUID.fix, _UUID.entity_fix, unless_given=3), "uuid."),
        **table("uuid1 uuid4 uuid6 uuid7", _UUID, "uuid_utils."),
        "shortuuid.uuid": _UUID,
        "nanoid.generate": _UUID,
        "ulid.new": _UUID,
        "ulid.ULID": Outside(_UUID.verb, _UUID.fix, _UUID.entity_fix, unless_given=1),
        "bson.ObjectId": Outside(_UUID.verb, _UUID.fix, _UUID.entity_fix, unless_given=1),
        "bson.objectid.ObjectId": Outside(_UUID.verb, _UUID.fix, _UUID.entity_fix, unless_given=1),
        "cuid2.cuid_wrapper": _UUID,
    }


class Environment(OutsideRule):
    """Environment variables, and what else differs from process to process."""

    code = "PDU004"
    title = "The environment of the process is read"
    at_import = True
    names: ClassVar = {
        **table("environ environb", _ENVIRONMENT, "os."),
        **table("getenv getenvb putenv unsetenv", _ENVIRONMENT, "os."),
        **table(
            "getpid getppid getlogin uname cpu_count getloadavg getuid getgid umask getcwd getcwdb "
            "process_cpu_count sched_getaffinity",
            _MACHINE,
            "os.",
        ),
        "sys.argv": _ENVIRONMENT,
        **table("node uname machine platform processor", _MACHINE, "platform."),
        **table("gethostname getfqdn", _MACHINE, "socket."),
        "getpass.getuser": _MACHINE,
        "threading.get_ident": _MACHINE,
        "threading.get_native_id": _MACHINE,
        "threading.current_thread": _MACHINE,
        "multiprocessing.current_process": _MACHINE,
        "multiprocessing.cpu_count": _MACHINE,
        **table("virtual_memory cpu_percent cpu_count Process", _MACHINE, "psutil."),
        "decouple.config": _ENVIRONMENT,
        "pydantic_settings.BaseSettings": _ENVIRONMENT,
        "pydantic.BaseSettings": _ENVIRONMENT,
        "pathlib.Path.cwd": _MACHINE,
        "pathlib.Path.home": _MACHINE,
    }
