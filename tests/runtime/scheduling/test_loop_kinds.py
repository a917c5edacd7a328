from __future__ import annotations

import importlib.util
from typing import Any

import anyio
import pytest

from perdure import UsageError
from perdure.runtime.scheduling.loop_kinds import backend_options, running_kind


@pytest.fixture(params=[False, True], ids=["without uvloop", "with uvloop"])
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    there: bool = request.param

    def find_spec(name: str) -> object:
        return object() if there else None

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    return there


def test_asyncio_runs_on_uvloop_where_that_is_installed(installed: bool) -> None:
    assert backend_options("asyncio", None) == {"use_uvloop": installed}


def test_asyncio_runs_on_its_own_loop_where_that_is_asked_for(installed: bool) -> None:
    assert backend_options("asyncio", False) == {"use_uvloop": False}


def test_uvloop_is_asked_for_in_vain_where_it_is_not_installed(installed: bool) -> None:
    if installed:
        assert backend_options("asyncio", True) == {"use_uvloop": True}
        return
    with pytest.raises(UsageError, match="uvloop is not installed: pip install"):
        backend_options("asyncio", True)


@pytest.mark.parametrize("uvloop", [None, False])
def test_trio_has_no_choice_of_loops(uvloop: bool | None, installed: bool) -> None:
    assert backend_options("trio", uvloop) == {}
    with pytest.raises(UsageError, match="leave it out on trio"):
        backend_options("trio", True)


async def test_the_running_loop_is_told_by_its_backend(anyio_backend_name: str) -> None:
    assert running_kind() == (anyio_backend_name, False)


def test_another_loop_of_the_same_kind_can_be_run() -> None:
    pytest.importorskip("uvloop")

    async def kind() -> tuple[str, bool]:
        return running_kind()

    options: dict[str, Any] = backend_options("asyncio", True)

    assert anyio.run(kind, backend="asyncio", backend_options=options) == ("asyncio", True)
