"""A lab on another machine: `--lab ssh://host/path` runs the command there, over the user's own ssh.

Invariant: ssh is called as the user would call it, so that keys, jump hosts and a shared connection (ControlMaster) of
`~/.ssh/config` count; no port is opened, and nothing but cerank has to be on the other side.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from cerank.errors import MissingError, RunFailedError, UsageError

COMMAND = "CERANK_REMOTE"  # environment variable: how cerank is called on the other side; default: cerank
COMMANDS = ("ps", "show", "logs", "compare", "stop", "resume", "queue")  # those that only read or change the lab
_ADDRESS = re.compile(r"ssh://(?:([\w.-]+)@)?([\w][\w.-]*|\[[0-9a-fA-F:]+\])(?::(\d{1,5}))?(/.*)")
_SSH_FAILED, _NOT_FOUND = 255, 127  # exit codes of ssh, and of the other side's shell


class RemoteLab(NamedTuple):
    """Where a lab is."""

    user: str
    host: str
    port: str
    folder: str

    @property
    def words(self) -> list[str]:
        """Return the words by which ssh is called."""
        port = ["-p", self.port] if self.port else []
        return ["ssh", *port, "--", f"{self.user}@{self.host}" if self.user else self.host]


def address_in(words: Sequence[str]) -> str:
    """Return the address that --lab names, or "" if it names a folder."""
    for number, word in enumerate(words):
        value = word.removeprefix("--lab=") if word.startswith("--lab=") else ""
        value = words[number + 1] if word == "--lab" and number + 1 < len(words) else value
        if value.startswith("ssh://"):
            return value
    return ""


def parsed(address: str) -> RemoteLab:
    """Return the parts of an address.

    Raises:
        UsageError: it is none.

    Example:
        >>> parsed("ssh://me@login:2222/shared/lab").words
        ['ssh', '-p', '2222', '--', 'me@login']
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        what = f"not the address of a lab; given: {address!r:.100}"
        raise UsageError(what, where="--lab", hint="such as ssh://login-node/shared/me/lab", code="remote-lab")
    user, host, port, folder = (part or "" for part in match.groups())
    return RemoteLab(user, host.strip("[]"), port, folder)


def run_there(words: Sequence[str], address: str) -> int:
    """Run the command on the machine of the lab, and return its exit code.

    Args:
        words: arguments of this command.
        address: the address in them.

    Raises:
        UsageError: the address is none, or the command needs more than the lab.
        MissingError: there is no ssh here, or no cerank there.
        RunFailedError: the machine cannot be reached; ssh has said why.
    """
    lab = parsed(address)
    command = next((word for word in words if not word.startswith("-")), "")
    if command not in COMMANDS:
        hint = f"log in there for it; these work from here: {', '.join(COMMANDS)}"
        raise UsageError(f"'{command}' cannot use a lab over ssh", where="--lab", hint=hint, code="remote-lab")
    local = [word.replace(address, lab.folder) if address in word else word for word in words]
    is_chosen = any(word in {"--format", "--json"} or word.startswith("--format=") for word in words)
    if _shows_a_table(command, words) and sys.stdout.isatty() and not is_chosen:
        local += ["--format", "table"]  # the other side sees no terminal
    there = os.environ.get(COMMAND, "cerank")
    width = f"COLUMNS={os.get_terminal_size().columns} " if sys.stdout.isatty() else ""
    try:
        done = subprocess.run([*lab.words, f"{width}{there} {shlex.join(local)}"], check=False)
    except FileNotFoundError:
        raise MissingError("there is no ssh on this machine", where="--lab", code="remote-lab") from None
    if done.returncode == _SSH_FAILED:
        raise RunFailedError(f"{lab.host} was not reached by ssh", where="--lab", code="remote-lab")
    if done.returncode == _NOT_FOUND:
        hint = f"set {COMMAND}, such as /shared/me/venv/bin/cerank"
        raise MissingError(f"{lab.host} has no command {there}", where="--lab", hint=hint, code="remote-lab")
    return done.returncode


def _shows_a_table(command: str, words: Sequence[str]) -> bool:
    """Return whether a command has an option --format: of `queue` only that without a subcommand."""
    return command in {"ps", "show", "compare"} or (command == "queue" and not _QUEUE_CHANGES & set(words))


_QUEUE_CHANGES = {"start", "add", "move", "drop"}
