"""``perdure new``: a small application to begin with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

_APP = '''\
"""What {name} does: it greets people, durably, and counts how often each was greeted."""

import perdure

app = perdure.App({quoted})


@app.entity  # annotated fields are the durable state, public methods the operations
class Greeted:
    times: int = 0

    def add(self) -> int:
        self.times += 1
        return self.times


@app.activity  # does the real work; it is called again if it fails or the process dies
async def write(text: str) -> str:
    return f"{{text}}!"


@app.orchestration  # goes on after a crash where it was
async def greet(ctx: perdure.OrchestrationContext, name: str) -> str:
    retry = perdure.RetryPolicy(first_interval=1.0, max_attempts=5)
    times = await ctx.call_entity(perdure.EntityId(Greeted, name.casefold()), Greeted.add)
    return await ctx.call_activity(write, f"Hello {{name}}, greeting {{times}}", retry=retry)
'''

_TEST = """\
import anyio

import perdure
from app import app, greet


async def greet_twice() -> list[str]:
    async with perdure.Hub(app) as hub:  # in memory
        return [
            await (await hub.client.start_new(greet, name)).result(timeout=60)
            for name in ("Ada", "ada")
        ]


def test_who_is_greeted_again_is_told_so() -> None:
    assert anyio.run(greet_twice) == ["Hello Ada, greeting 1!", "Hello ada, greeting 2!"]
"""

_README = """\
# {name}

    perdure dev app.py:app               # serves it, and again whenever the code changes

and, in another terminal, in this folder:

    perdure start greet '"Ada"' --wait 30
    perdure list
    perdure entities

The dashboard is at http://127.0.0.1:7071/ meanwhile.

    python -m pytest                     # its tests

`perdure dev` keeps its hub in `.perdure`; remove that folder to begin anew.
To run it in earnest: `perdure serve app:app --store sqlite:hub`.
"""

_IGNORED = ".perdure/\n__pycache__/\n"


def add_to(app: typer.Typer, kind: Any) -> None:
    """Declare the command; it is about no hub, so its kind is another."""
    del kind
    app.command("new", epilog="Example: perdure new greeter")(new)


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The folder to make.")],
) -> None:
    """Write a small application with a test, ready to run."""
    from perdure import UsageError

    folder = Path(name)
    if not folder.name or not folder.name.isprintable():
        raise UsageError(f"{name!r} is no name of a folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already; give another name")
    quoted = json.dumps(folder.name, ensure_ascii=False)
    files = {"app.py": _APP, "test_app.py": _TEST, "README.md": _README}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            shown = text if file == "test_app.py" else text.format(name=folder.name, quoted=quoted)
            (folder / file).write_text(shown, "utf-8")
        (folder / ".gitignore").write_text(_IGNORED, "utf-8")
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}") from None
    print(f"made {folder}: cd {folder} && perdure dev app.py:app")
