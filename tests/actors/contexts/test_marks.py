from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perdure.actors.contexts.marks import combine, commutative, readonly
from perdure.actors.errors import RegistrationError
from perdure.actors.registry.definitions import is_commutative, is_readonly


class Counter:
    def add(self, amount: int) -> None:
        raise NotImplementedError(amount)


def test_a_mark_leaves_the_function_as_it_is() -> None:
    def get(self: Counter) -> int:
        return 5

    def push(self: Counter, amount: int) -> None:
        raise NotImplementedError(amount)

    assert readonly(get) is get
    assert commutative(push) is push
    assert [is_readonly(get), is_commutative(get)] == [True, False]
    assert [is_readonly(push), is_commutative(push)] == [False, True]


@pytest.mark.parametrize("value", [property(len), staticmethod(len), Counter, 5], ids=range(4))
@pytest.mark.parametrize("mark", [readonly, commutative])
def test_only_a_method_can_be_marked(mark: Callable[[Any], Any], value: Any) -> None:
    with pytest.raises(RegistrationError, match=f"@perdure.{mark.__name__} marks a method of an"):
        mark(value)


def test_what_combines_becomes_static_and_knows_its_operation() -> None:
    def total(amounts: list[int]) -> int:
        return sum(amounts)

    mark: Any = combine(Counter.add)
    for given in (total, staticmethod(total)):
        made: Any = mark(given)

        assert type(made) is staticmethod
        assert made.__func__ is total
        assert vars(made)["__perdure_combines__"] is Counter.add


def test_what_cannot_be_combined_or_combine_is_refused() -> None:
    begin: Any = combine
    for operation in ("add", Counter().add, None):
        with pytest.raises(RegistrationError, match="takes the operation whose inputs are folded"):
            begin(operation)
    with pytest.raises(RegistrationError, match=r"@perdure\.combine marks a static function, not"):
        begin(Counter.add)(5)
