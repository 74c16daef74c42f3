"""Find the files that users name on the command line, pipes and standard input among them.

Invariant: what is returned is a regular file, which can be read more than once; a pipe's content is copied first.
"""

from __future__ import annotations

import atexit
import contextlib
import difflib
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from cerank.errors import os_error

STDIN = "-"


def input_file(text: str) -> Path | None:
    """Return the file that `text` names; None where there is none, or a name that none could have.

    "-" is standard input; a pipe, such as a shell makes for `<(zcat a.gz)`, is read to its end and copied.

    Raises:
        UsageError: a pipe that cannot be read, or no space for its content.
    """
    if text == STDIN:
        return _copied(Path("/dev/stdin"))
    try:
        path = Path(text).expanduser()
        mode = path.stat().st_mode
    except (OSError, ValueError, RuntimeError):
        return None
    if stat.S_ISREG(mode):
        return path
    return _copied(path) if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) else None


def _copied(path: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="cerank-input-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = folder / ("stdin" if path == Path("/dev/stdin") else path.name)
    try:
        with (
            contextlib.nullcontext(sys.stdin.buffer) if copy.name == "stdin" else path.open("rb") as source,
            copy.open("wb") as target,
        ):
            shutil.copyfileobj(source, target)
    except OSError as error:
        raise os_error(error, path) from error
    return copy


def looks_like_a_path(text: str) -> bool:
    """Return whether `text` is more likely meant as a file than as a name: it has a separator or an ending."""
    return "/" in text or bool(Path(text).suffix) or text in {".", ".."}


def near_files(text: str, most: int = 5) -> list[str]:
    """Return the files in the same folder whose names are nearest to the one that is not there."""
    try:
        path = Path(text).expanduser()
        names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    except (OSError, ValueError, RuntimeError):
        return []
    close = difflib.get_close_matches(path.name, names, n=most, cutoff=0.6)
    return [str(path.parent / name) if "/" in text else name for name in close]


def near_folders(text: str) -> str:
    """Return a hint for a folder that is not there: up to three beside it with a similar name, or ""."""
    try:
        path = Path(text).expanduser()
        names = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
    except (OSError, ValueError, RuntimeError):
        return ""
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    near = [path.with_name(name) for name in close]
    shown = [str(folder) if folder.is_absolute() or folder.parts[0] == ".." else f"./{folder}" for folder in near]
    return f"did you mean {' or '.join(shown)}?" if shown else ""
