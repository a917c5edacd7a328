"""Which documents there are: a folder's, or files that every machine has."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from .models import Batch, Document, Priority

DOCUMENTS_MAX = 2_000  # all of them are one orchestration's input

_KINDS = frozenset({".py", ".txt", ".html", ".htm", ".md", ".rst", ".toml"})
_SKIPPED = frozenset(
    {"site-packages", "__pycache__", "test", "tests", "idle_test", "lib2to3", "encodings"}
)
_PROJECT = Path(__file__).parents[2]


class PlanError(Exception):
    """There is nothing to process; the message says why."""


def documents_in(folder: Path, limit: int) -> list[tuple[str, Path]]:
    """Give the documents in a folder, at most ``limit`` spread evenly over their sorted names.

    Raises:
        PlanError: no such folder, or no documents in it.
    """
    if not folder.exists():
        raise PlanError(f"there is no folder {folder}")
    if not folder.is_dir():
        raise PlanError(f"{folder} is a file; give the folder that it is in")
    found = [(str(path.relative_to(folder)), path) for path in _walk(folder)]
    if not found:
        raise PlanError(
            f"no documents in {folder}: none of its files is one of {', '.join(sorted(_KINDS))}"
        )
    return _spread(found, limit)


def everyday_documents(workspace: Path, limit: int) -> list[tuple[str, Path]]:
    """Give documents that every machine has.

    They are the interpreter's standard library, this project's own pages, and a few that are made
    in the workspace because nobody keeps damaged files and secrets about.
    """
    own = [(f"inbox/{path.name}", path) for path in _make_samples(workspace / "inbox")]
    pages = [*_PROJECT.glob("*.md"), *_PROJECT.glob("*.toml"), *_PROJECT.glob("docs/*.md")]
    own += [(f"project/{path.relative_to(_PROJECT)}", path) for path in sorted(pages)]
    library = Path(sysconfig.get_path("stdlib"))
    found = [(f"stdlib/{path.relative_to(library)}", path) for path in _walk(library)]
    own = own[:limit]
    return own + _spread(found, limit - len(own))


def make_batch(documents: Iterable[tuple[str, Path]], workspace: Path) -> Batch:
    """Name the documents and their instances; the same files give the same names.

    Raises:
        PlanError: a document cannot be read.
    """
    entries = list(documents)
    digest = hashlib.sha256()
    for name, path in entries:
        try:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{name}\n{content}\n".encode())
        except OSError as error:
            raise PlanError(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeEncodeError as error:
            raise PlanError(f"the name of {str(path)!r} is not valid text; rename it") from error
    batch_id = digest.hexdigest()[:10]
    return Batch(
        batch_id,
        [
            Document(
                document_id=name,
                instance_id=f"doc-{batch_id}-{number:04}",
                path=str(path.resolve()),
                user_id=_owner(name),
                priority=_priority(name),
                batch=batch_id,
                workspace=str(workspace.resolve()),
            )
            for number, (name, path) in enumerate(entries)
        ],
    )


def _walk(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _KINDS
        and not _SKIPPED.intersection(path.relative_to(folder).parts[:-1])
        and path.is_file()
    )


def _spread(found: list[tuple[str, Path]], limit: int) -> list[tuple[str, Path]]:
    if len(found) <= limit:
        return found
    return [found[position * len(found) // limit] for position in range(limit)]


def _owner(name: str) -> str:
    top, _, rest = name.partition("/")
    return f"{top if rest else 'root'}@owners.invalid"


def _priority(name: str) -> Priority:
    return "normal" if name.endswith(".py") else "high"


def _make_samples(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    # Put together here, so that nobody's scanner takes this file for a leak.
    secrets = [f"api_key = {'7f3a9c' * 4}", "-----BEGIN " + "PRIVATE KEY-----", "AKIA" + "Z" * 16]
    contents = {
        "deploy-notes.txt": f"Rotate after the release:\n{secrets[0]}\n".encode(),
        "old-key.txt": f"Found in the attic.\n{secrets[1]}\nMIIC...\n".encode(),
        "cloud.md": f"# Cloud\n\nThe account is {secrets[2]}.\n".encode(),
        "photograph.txt": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)),
        "latin-1.txt": "Grüße aus Zürich: déjà vu, façade, naïveté\n".encode("latin-1"),
        "half-written.py": b"def unfinished(:\n    pass\n",
        "greek.txt": "Πάντες ἄνθρωποι τοῦ εἰδέναι ὀρέγονται φύσει.\n".encode(),
        "contacts.txt": "\n".join(f"person{n}@example.org" for n in range(8)).encode(),
        "minutes.txt": b"Decided: the pipeline goes live when every document is accounted for.\n",
    }
    for name, content in contents.items():
        path = folder / name
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
    return sorted(folder / name for name in contents)
