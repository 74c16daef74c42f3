"""A script that stands for ssh: it runs on this machine what is to run on another one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cerank.runs import lab_address

SSH = """#!/bin/sh
echo "$@" >>{folder}/words.txt
echo $$ >{folder}/pid
[ ! -f {folder}/away ] || {{ cat {folder}/away >&2; exit 255; }}
[ ! -f {folder}/noise ] || cat {folder}/noise
shift $(($# - 1))
exec sh -c "$1"
"""


def put_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the stand-in the ssh of this test; return the file with the words of each call.

    The file `pid` names the process that a line is. A file `away` beside it refuses every call with its text; a file
    `noise` is what the login prints first.
    """
    program = folder / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(SSH.format(folder=folder))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv(lab_address.COMMAND, f"exec {sys.executable} -m cerank")
    return folder / "words.txt"
