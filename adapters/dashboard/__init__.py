"""The dashboard: pages of HTML, CSS and ES modules, which ``perdure.adapters.http`` serves.

Nothing here runs in Python. What the pages show they ask of ``/api/v1``, as anybody may.
"""

from __future__ import annotations

from importlib.resources import files

_KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


def read_files() -> dict[str, tuple[str, bytes]]:
    """Give the files by name, each with its media type."""
    return {
        file.name: (_KINDS[file.name[file.name.rfind(".") :]], file.read_bytes())
        for file in files(__name__).iterdir()
        if file.is_file() and file.name[file.name.rfind(".") :] in _KINDS
    }
