from __future__ import annotations

import collections
import dataclasses
import decimal
import io
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Sequence, Set as AbstractSet
from datetime import UTC, date, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pytest

pytest.importorskip("pydantic")

from hypothesis import HealthCheck, given, settings, strategies as st
from pydantic import SecretStr

from perdure.actors.codec.codec import codec_for
from perdure.actors.errors import PayloadError, RegistrationError
from tests.actors.codec import crossing
from tests.actors.codec.crossing import CROSSING
from tests.actors.codec.samples import typed_values

ROOT = Path(__file__).parents[3]
EXAMPLES = settings().max_examples
BERLIN = ZoneInfo("Europe/Berlin")
NO_SECRET: Any = SecretStr("")
LOGIN = crossing.Login(user="ada", password=SecretStr("hunter2"))
TWICE = datetime(2024, 10, 27, 2, 30, fold=1)  # noqa: DTZ001
SLOW = [
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
    HealthCheck.large_base_example,
]


@dataclasses.dataclass
class Items(list[int]):
    name: str = ""


def cases() -> st.SearchStrategy[tuple[int, Any]]:
    return st.integers(0, len(CROSSING) - 1).flatmap(
        lambda number: st.tuples(st.just(number), CROSSING[number][1])
    )


def read_elsewhere(asked: list[tuple[Any, bytes]]) -> list[tuple[Any, bytes]]:
    child = subprocess.run(
        [sys.executable, "-m", "tests.actors.codec.crossing"],
        input=pickle.dumps(asked),
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    answers: list[tuple[Any, bytes]] = pickle.loads(child.stdout)
    return answers


def test_what_is_not_refused_is_read_as_it_was_by_a_process_with_another_hash_seed() -> None:
    written: list[tuple[int, bytes]] = []
    values: list[Any] = []
    refused: set[int] = set()

    @settings(max_examples=12 * EXAMPLES, deadline=None, suppress_health_check=SLOW, database=None)
    @given(cases())
    def write(case: tuple[int, Any]) -> None:
        number, value = case
        try:
            data = codec_for(CROSSING[number][0]).encode(value)
        except PayloadError:
            refused.add(number)
            return
        written.append((number, data))
        values.append(value)

    write()

    asked = [(CROSSING[number][0], data) for number, data in written]
    for value, (annotation, data), (read, again) in zip(
        values, asked, read_elsewhere(asked), strict=True
    ):
        assert crossing.alike(value, read), (annotation, value, read)
        assert again == data, annotation
    accepted = {number for number, _ in written}
    # Which of them a run draws, and with which values, is chance.
    assert len(accepted) > len(CROSSING) * 3 / 4, refused - accepted


def test_whatever_is_accepted_for_whatever_annotation_is_read_in_another_process() -> None:
    asked: list[tuple[Any, bytes]] = []
    values: list[Any] = []
    vague: list[bool] = []
    kinds = crossing.any_kind()

    @settings(max_examples=4 * EXAMPLES, deadline=None, suppress_health_check=SLOW, database=None)
    @given(st.data())
    def write(data: Any) -> None:
        kind = data.draw(kinds)
        value = data.draw(kind.values)
        try:
            written = codec_for(kind.annotation).encode(value)
        except (PayloadError, RegistrationError):
            return
        asked.append((kind.annotation, written))
        values.append(value)
        vague.append(kind.vague)

    write()

    for value, loosely, (annotation, data), (read, again) in zip(
        values, vague, asked, read_elsewhere(asked), strict=True
    ):
        is_kept = crossing.kept if loosely else crossing.alike
        assert is_kept(value, read), (annotation, value, read)
        assert again == data, annotation


@settings(deadline=None)
@given(typed_values())
def test_what_is_nested_is_read_as_it_was_in_all_its_parts(drawn: tuple[Any, Any]) -> None:
    annotation, value = drawn
    codec = codec_for(annotation)

    assert crossing.alike(value, codec.decode(codec.encode(value)))


def refusal(annotation: Any, value: Any) -> PayloadError:
    with pytest.raises(PayloadError) as raised:
        codec_for(annotation).encode(value)
    return raised.value


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (list[crossing.Event], [crossing.Payment("x", 5)], "$[0]"),
        (crossing.Event, crossing.changed(crossing.Event("x"), more=1), "$.more"),
        (crossing.FrozenSummed, crossing.changed(crossing.FrozenSummed((1,)), total=5), "$.total"),
        (crossing.Doubled, crossing.Doubled(3), "$.number"),
        (crossing.Login, crossing.Login(user="a", password="pw"), "$.password"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (
            list[crossing.Inner],
            [crossing.spoilt(crossing.Inner(), labels="no set")],
            "$[0].labels",
        ),
        (crossing.Model, crossing.Model(theName="a", inner=crossing.Wide(more=1)), "$.inner"),
        (crossing.Model, crossing.private(crossing.Model(theName="a"), 1), "$._private"),
        (crossing.Hidden, crossing.Hidden(number=-1), "$.number"),
        (crossing.Clock, crossing.Clock(when=TWICE), "$.when"),
        (crossing.Clock, crossing.Clock(when=TWICE.replace(tzinfo=BERLIN)), "$.when"),
        (crossing.Clock, crossing.Clock(hours={TWICE}), "$.hours"),
        (crossing.Clock, crossing.Clock(queue=collections.deque([1], 2)), "$.queue"),
        (crossing.Clock, crossing.Clock(counts=collections.defaultdict(lambda: 1)), "$.counts"),
        (crossing.Clock, crossing.spoilt(crossing.Clock(), number=True), "$.number"),
        (crossing.Slotted, crossing.changed(crossing.Slotted(), extra=1), "$.extra"),
        (crossing.Refusal, crossing.Refusal("x"), "$.args"),
        (datetime, TWICE.replace(tzinfo=crossing.Summer()), "$"),
        (list[time], [time(1, tzinfo=crossing.Summer())], "$[0]"),
        (dict[int, str], {True: "x"}, "$ key bool True"),
        (Any, LOGIN, "$.password"),
        (list[object], [{"a": (LOGIN,)}], "$[0].a[0].password"),
        (crossing.Login | Any, LOGIN, "$.password"),
        (crossing.Anything, crossing.Anything(LOGIN), "$.content.password"),
        (Any, crossing.Login(user="a", password=NO_SECRET, note="x"), "$.note"),
        (Any, {"m": crossing.private(crossing.Model(theName="a"), 1)}, "$.m._private"),
        (Any, crossing.spoilt(crossing.Clock(), number=True), "$.number"),
        (Any, crossing.changed(crossing.Summed([1]), more=1), "$.more"),
        (Any, [crossing.changed(crossing.Name("a"), more=1)], "$[0].more"),
        (Any, crossing.changed(crossing.Bag(a=1), more=1), "$.more"),
        (Any, (crossing.changed(crossing.Row([1]), more=1),), "$[0].more"),
        (
            list[crossing.Clock | list[Any]],
            [crossing.spoilt(crossing.Clock(), number=True)],
            "$[0].number",
        ),
        (crossing.Streamed, crossing.Streamed(items=[1]), "$.items"),
        (crossing.Empty, crossing.changed(crossing.Empty(), more=1), "$.more"),
        (crossing.Rising, crossing.Rising(1), "$.number"),
        (set[Any], {(1, 2)}, "$"),
        (set[Any], {date(2024, 2, 29), "2024-02-29"}, "$"),
    ],
)
def test_what_would_be_lost_is_refused_with_its_path(
    annotation: Any, value: Any, path: str
) -> None:
    assert refusal(annotation, value).path == path


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int | str, True),
        (float | int | None, True),
        (str | dict[str, int | bytes], {"a": True}),
        (int | bool, False),
        (int | Literal[True], True),
        (list[float] | list[int], [1]),
        (tuple[str, ...] | tuple[crossing.Mark, ...], (crossing.Mark.A,)),
        (list[Any] | list[crossing.Empty], [crossing.Empty()]),
        (list[Any] | list[crossing.Empty], [(1,)]),
        (crossing.DOLLARS | crossing.Options, {"$type": "Options", "$value": 1}),
        (set[int | str] | None, {True}),
    ],
    ids=range(11),
)
def test_a_value_is_read_by_the_member_of_a_union_that_it_is_of(
    annotation: Any, value: Any
) -> None:
    codec = codec_for(annotation)

    assert repr(codec.decode(codec.encode(value))) == repr(value).replace("(1,)", "[1]")


def test_a_member_of_an_enum_is_written_as_what_it_is_equal_to_whatever_its_value() -> None:
    odd: Any = crossing.Odd.ONE

    assert codec_for(int | str).encode(odd) == b"1"
    assert codec_for(float).encode(odd) == b"1.0"


def test_a_class_that_runs_code_crosses_untyped_as_it_crosses_typed() -> None:
    codec = codec_for(Any)

    assert codec.encode(crossing.Summed([1, 2])) == b'{"items":[1,2],"total":3}'
    assert codec.encode(crossing.Inner(labels={"b", "a"})) == b'{"labels":["a","b"],"when":null}'


def test_what_nests_too_deeply_in_an_object_is_refused_untyped_too() -> None:
    deep: Any = []
    for _ in range(150):
        deep = [deep]
    value: Any = crossing.Passing(deep)
    for _ in range(150):
        value = [value]

    assert "nested too deeply" in refusal(Any, value).reason


def test_objects_that_hold_each_other_untyped_are_compared_once_each() -> None:
    value: Any = 0
    for _ in range(30):
        value = crossing.Passing(value)

    assert codec_for(Any).encode(value).count(b"content") == 30


@pytest.mark.parametrize(
    ("annotation", "data", "value"),
    [
        (dict[str, int] | Sequence[str], b'{"$type":1}', {"$type": 1}),
        (dict[str, int] | Sequence[str], b'["x"]', ["x"]),
        (crossing.Event | Sequence[str] | None, b'{"kind":"x"}', crossing.Event("x")),
        (str | AbstractSet[int] | crossing.Event, b"[1]", {1}),
    ],
    ids=range(4),
)
def test_a_member_that_was_written_without_a_tag_is_read(
    annotation: Any, data: bytes, value: Any
) -> None:
    codec = codec_for(annotation)

    assert codec.decode(data) == value
    assert codec.decode(codec.encode(value)) == value


def test_parts_that_know_their_whole_are_compared_and_read_back() -> None:
    codec = codec_for(crossing.Branch)
    value = crossing.Branch("a", [crossing.Branch("b"), crossing.Branch("c")])

    read = codec.decode(codec.encode(value))
    assert [one.over is read for one in read.branches] == [True, True]

    value.branches[0].over = value.branches[1]
    assert refusal(crossing.Branch, value).path.startswith("$.branches[0].over")


def test_parts_that_know_all_others_are_compared_once_each() -> None:
    crowd = crossing.Crowd(20)

    assert codec_for(crossing.Crowd).encode(crowd) == b'{"size":20}'
    crossing.changed(crowd.members[7], number=-1)
    assert refusal(crossing.Crowd, crowd).path.endswith(".number")


def test_fields_may_be_called_as_they_like_and_have_their_value_in_the_class() -> None:
    for value in (crossing.Reserved(1, ["a"]), crossing.Mapped([1]), crossing.Counted(1)):
        codec = codec_for(type(value))

        assert codec.decode(codec.encode(value)) == value
    with pytest.raises(PayloadError, match="field '_attrs' of Reserved is missing"):
        codec_for(crossing.Reserved).decode(b"{}")


def test_a_hash_that_an_object_keeps_is_no_part_of_it() -> None:
    value = crossing.hashed(crossing.Hashed(1))

    assert codec_for(crossing.Hashed).encode(value) == b'{"number":1}'


def test_of_classes_that_hold_each_other_each_knows_what_the_other_would_lose() -> None:
    assert refusal(crossing.Right, crossing.Right(LOGIN)).path == "$.login.password"
    value = crossing.Left(crossing.Right(LOGIN))

    assert refusal(list[crossing.Left], [value]).path == "$[0].right.login.password"
    assert refusal(crossing.Left, value).path == "$.right.login.password"


def test_a_refusal_does_not_tell_the_secret_that_would_be_lost() -> None:
    login: Any = crossing.Login.model_validate({"user": "ada", "password": "hunter2"})

    assert "hunter2" not in str(refusal(crossing.Login, login))


def test_the_sets_of_a_model_have_one_order() -> None:
    held = crossing.Held[set[str]](content=set("gadfbce"))

    assert codec_for(crossing.Held[set[str]]).encode(held) == (
        b'{"content":["a","b","c","d","e","f","g"]}'
    )


@pytest.mark.parametrize(
    ("annotation", "value", "data"),
    [
        (datetime, TWICE, b'"2024-10-27T02:30:00[_fold=1]"'),
        (datetime, TWICE.replace(tzinfo=UTC), b'"2024-10-27T02:30:00+00:00[_fold=1]"'),
        (datetime, TWICE.replace(tzinfo=BERLIN), b'"2024-10-27T02:30:00+01:00[Europe/Berlin]"'),
        (
            datetime,
            datetime(2024, 6, 1, tzinfo=BERLIN, fold=1),
            b'"2024-06-01T00:00:00+02:00[Europe/Berlin][_fold=1]"',
        ),
        (
            datetime,
            TWICE.replace(tzinfo=timezone(timedelta(hours=1), "M[E]Z"), fold=0),
            b'"2024-10-27T02:30:00+01:00[_name=M%5BE%5DZ]"',
        ),
        (time, time(2, 30, tzinfo=BERLIN), b'"02:30:00[Europe/Berlin]"'),
        (time, time(2, 30, fold=1), b'"02:30:00[_fold=1]"'),
        (time, time(2, 30, tzinfo=ZoneInfo("UTC")), b'"02:30:00+00:00[UTC]"'),
        (dict[datetime, int], {TWICE: 1}, b'{"2024-10-27T02:30:00[_fold=1]":1}'),
    ],
)
def test_a_time_keeps_its_zone_and_its_fold(annotation: Any, value: Any, data: bytes) -> None:
    codec = codec_for(annotation)

    assert codec.encode(value) == data
    assert crossing.alike(value, codec.decode(data))


@pytest.mark.parametrize(
    "text",
    ["2024-06-01T00:00:00[_name=x]", "2024-06-01T00:00:00[u-ca=x]", "2024-06-01[", "[_fold=1]"],
)
def test_other_marks_of_a_time_are_refused(text: str) -> None:
    with pytest.raises(PayloadError, match="is not the text of a datetime"):
        codec_for(datetime).decode(f'"{text}"'.encode())


def test_a_zone_that_was_read_from_a_file_is_refused() -> None:
    counts = struct.pack(">6l", 0, 0, 0, 0, 1, 4)
    file = b"TZif" + bytes(16) + counts + struct.pack(">lBB", 3600, 0, 0) + b"CET\0"
    zone = ZoneInfo.from_file(io.BytesIO(file), key="Europe/Berlin")

    assert "read from a file" in refusal(datetime, TWICE.replace(tzinfo=zone)).reason


def test_a_decimal_has_the_same_text_in_every_decimal_context() -> None:
    with decimal.localcontext(capitals=0):
        assert codec_for(decimal.Decimal).encode(decimal.Decimal("1E+5")) == b'"1E+5"'


@pytest.mark.parametrize(
    "annotation",
    [Literal[crossing.Color.RED, "red"], Literal[b"a", "YQ=="], Items, list[Items]],
    ids=range(4),
)
def test_an_annotation_that_could_not_tell_its_values_apart_is_refused(annotation: Any) -> None:
    with pytest.raises(RegistrationError):
        codec_for(annotation)
