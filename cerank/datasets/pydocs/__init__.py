"""The embedded dataset: known-item search in the documentation of Python's own standard library.

`materialise` builds it at first use and keeps it in the cache as three folders in the layout of
`datasets.local_folders`.
"""

from __future__ import annotations

import functools
import hashlib
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import cerank
from cerank.errors import MissingError, UsageError, os_reason

VERSION = 1  # version of the rules that build the datasets; another one gives other datasets
SPLITS = ("train", "validation", "test")


@functools.cache
def materialize(cache: Path) -> Path:
    """Return the folder that holds train/, validation/ and test/, building it (a few seconds) if it is missing.

    The rules that build it, and the Python it is built from, name the folder: another Python has another pydocs. It is
    whole or absent, whoever else builds it at the same time.

    Raises:
        MissingError: this Python lacks the sources of its standard library.
        UsageError: the cache cannot be written to.
    """
    python = f"{platform.python_implementation().lower()}-{platform.python_version()}-{platform.system().lower()}"
    folder = cache / "pydocs" / f"v{VERSION}-{python}-{_rules()[:12]}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as room:
            fresh = Path(room) / "pydocs"
            build_pydocs(fresh)
            try:
                fresh.rename(folder)
            except OSError:
                if not folder.is_dir():  # another process was faster; it built the same by the same rules
                    raise
    except OSError as error:
        hint = "choose another with --cache"
        raise UsageError(f"cannot write to the cache: {os_reason(error)}", where=str(cache), hint=hint) from error
    return folder


def build_pydocs(folder: Path) -> None:
    """Builds it in a bare interpreter of its own: what a program has loaded changes what live modules say.

    Within cerank itself `sys.excepthook` was another function, and with it its documentation was gone.
    """
    root = str(Path(cerank.__file__).parents[1])
    code = "import sys; sys.path.insert(0, sys.argv[1])\n"
    code += "from cerank.datasets.pydocs.collections import write; write(sys.argv[2])"
    command = [sys.executable, "-I", "-S", "-c", code, root, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1][:300]
        hint = (
            "some distributions ship no sources or strip docstrings; CPython from python.org, conda or pyenv has both"
        )
        raise MissingError(
            f"the standard library of this Python gives no pydocs: {reason}",
            where="pydocs",
            hint=hint,
            code="pydocs-unavailable",
        )


def _rules() -> str:
    """Return the SHA-256 of the code that builds the datasets."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
