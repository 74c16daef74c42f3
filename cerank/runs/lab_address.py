"""The address of a lab on another machine, `ssh://host/path`, and the words by which ssh is called for it.

Invariant: ssh is called as the user would call it, so that keys, jump hosts and a shared connection (ControlMaster) of
`~/.ssh/config` count; what is no address never reaches it.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from cerank.errors import UsageError

COMMAND = "CERANK_REMOTE"  # environment variable: how cerank is called on the other side; default: cerank
SSH_FAILED, NOT_FOUND = 255, 127  # exit codes of ssh, and of the other side's shell
_ADDRESS = re.compile(r"ssh://(?:([\w.-]+)@)?([\w][\w.-]*|\[[0-9a-fA-F:]+\])(?::(\d{1,5}))?(/.*)")


class LabAddress(NamedTuple):
    """Where a lab is."""

    user: str
    host: str
    port: str
    folder: str

    @property
    def words(self) -> list[str]:
        """Return the words by which ssh is called."""
        return self.words_with()

    def words_with(self, *options: str) -> list[str]:
        """Return the words by which ssh is called with further options."""
        port = ["-p", self.port] if self.port else []
        return ["ssh", *options, *port, "--", f"{self.user}@{self.host}" if self.user else self.host]

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        user, port = f"{self.user}@" if self.user else "", f":{self.port}" if self.port else ""
        return f"ssh://{user}{host}{port}{self.folder}"


def remote_command() -> str:
    """Return how cerank is called on the other side."""
    return os.environ.get(COMMAND, "cerank")


def is_address(text: str) -> bool:
    """Return whether a text is meant as an address and not as a folder."""
    return text.startswith("ssh://")


def parsed(address: str, where: str = "--lab") -> LabAddress:
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
        raise UsageError(what, where=where, hint="such as ssh://login-node/shared/me/lab", code="remote-lab")
    user, host, port, folder = (part or "" for part in match.groups())
    return LabAddress(user, host.strip("[]"), port, folder)
