"""A lab on another machine: `--lab ssh://host/path` runs the command there, over the user's own ssh.

Invariant: ssh is called as the user would call it, so that keys, jump hosts and a shared connection (ControlMaster) of
`~/.ssh/config` count; no port is opened, and nothing but cerank has to be on the other side.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence

from cerank.errors import MissingError, RunFailedError, UsageError
from cerank.runs.lab_address import COMMAND, NOT_FOUND, SSH_FAILED, is_address, parsed, remote_command

COMMANDS = ("ps", "show", "logs", "compare", "stop", "resume", "queue")  # those that only read or change the lab
HERE = ("tui", "copy", "pull")  # those that run here and speak with the other side


def address_in(words: Sequence[str]) -> str:
    """Return the address that --lab names, or "" if it names a folder."""
    for number, word in enumerate(words):
        value = word.removeprefix("--lab=") if word.startswith("--lab=") else ""
        value = words[number + 1] if word == "--lab" and number + 1 < len(words) else value
        if is_address(value):
            return value
    return ""


def runs_here(words: Sequence[str]) -> bool:
    """Return whether the command itself speaks with the machine of the lab."""
    return next((word for word in words if not word.startswith("-")), "") in HERE


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
        hint = f"log in there for it; these work from here: {', '.join((*COMMANDS, *HERE))}"
        raise UsageError(f"'{command}' cannot use a lab over ssh", where="--lab", hint=hint, code="remote-lab")
    local = [word.replace(address, lab.folder) if address in word else word for word in words]
    is_chosen = any(word in {"--format", "--json"} or word.startswith("--format=") for word in words)
    if _shows_a_table(command, words) and sys.stdout.isatty() and not is_chosen:
        local += ["--format", "table"]  # the other side sees no terminal
    there = remote_command()
    width = f"COLUMNS={os.get_terminal_size().columns} " if sys.stdout.isatty() else ""
    try:
        done = subprocess.run([*lab.words, f"{width}{there} {shlex.join(local)}"], check=False)
    except FileNotFoundError:
        raise MissingError("there is no ssh on this machine", where="--lab", code="remote-lab") from None
    if done.returncode == SSH_FAILED:
        raise RunFailedError(f"{lab.host} was not reached by ssh", where="--lab", code="remote-lab")
    if done.returncode == NOT_FOUND:
        hint = f"set {COMMAND}, such as /shared/me/venv/bin/cerank"
        raise MissingError(f"{lab.host} has no command {there}", where="--lab", hint=hint, code="remote-lab")
    return done.returncode


def _shows_a_table(command: str, words: Sequence[str]) -> bool:
    """Return whether a command has an option --format: of `queue` only that without a subcommand."""
    return command in {"ps", "show", "compare"} or (command == "queue" and not _QUEUE_CHANGES & set(words))


_QUEUE_CHANGES = {"start", "add", "move", "drop"}
