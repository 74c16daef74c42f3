"""Tell the user that a run ended, by a command or a webhook of theirs.

Invariant: nothing here is called by a worker, so that no step ever waits for it; a message that cannot be sent is lost.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import urllib.request

VARIABLE = "CERANK_NOTIFY"  # environment variable: an https address or a command; unset sends nothing
_PATIENCE = 10.0  # seconds that sending may take


def request_of(target: str, text: str) -> urllib.request.Request:
    """Return the request that posts a text to a webhook: JSON for Slack and Discord, the bare text for ntfy and others.

    Args:
        target: an address that begins with http:// or https://.
        text: message, on one line.
    """
    body, kind = text.encode(), "text/plain; charset=utf-8"
    if "hooks.slack.com" in target:
        body, kind = json.dumps({"text": text}).encode(), "application/json"
    elif "discord.com/api/webhooks" in target:
        body, kind = json.dumps({"content": text}).encode(), "application/json"
    headers = {"Content-Type": kind, "User-Agent": "cerank"}
    return urllib.request.Request(target, data=body, headers=headers, method="POST")  # noqa: S310 - checked by `send`


def send(target: str, text: str) -> bool:
    """Send a text to a webhook, or run a command with the text as its last argument; return whether it was taken."""
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        if target.startswith(("https://", "http://")):
            with urllib.request.urlopen(request_of(target, text), timeout=_PATIENCE) as answer:  # noqa: S310
                return bool(200 <= answer.status < 300)
        command = [*shlex.split(target), text]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False)
        return done.returncode == 0
    return False
