"""Keys of servers: from the environment or a keyring file only, and nowhere else.

Invariant: a key is in memory and in the header of a request to the declared server; no record, log or error holds one.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path

from cerank.errors import MissingError, UsageError, os_error
from cerank.files.safe_open import read_file
from cerank.text.safe_text import redacted

KEYRING = "keys.toml"
_MARK = "[key]"
_SHORTEST = 4  # characters: a shorter key would be found in every text


class Key:
    """A server's key; its representation does not show it."""

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Key(...)" if self._value else "Key()"

    def __bool__(self) -> bool:
        return bool(self._value)

    def headers(self) -> dict[str, str]:
        """Return the header that carries it; none without a key."""
        return {"Authorization": f"Bearer {self._value}"} if self._value else {}

    def removed_from(self, text: str) -> str:
        """Return `text`, such as a server's error that repeats the key, without it and without any other token."""
        if len(self._value) >= _SHORTEST:
            text = text.replace(self._value, _MARK)
        return redacted(text)

    def removed_from_bytes(self, data: bytes) -> bytes:
        """Return `data`, such as a file of a server's answers, without the key."""
        value = self._value.encode()
        return data.replace(value, _MARK.encode()) if len(value) >= _SHORTEST else data


def keyring_file() -> Path:
    """Return the file for secret keys: keys.toml beside the user's settings, readable by its owner alone."""
    import platformdirs

    return platformdirs.user_config_path("cerank") / KEYRING


def find_key(name: str, environ: Mapping[str, str], keyring: Path) -> Key:
    """Return the key of that name: the environment variable, else the keyring's entry; no key for no name.

    Raises:
        MissingError: neither has it.
        UsageError: the keyring is readable by others, or no TOML; the message holds nothing of its content.
    """
    if not name:
        return Key("")
    value = environ.get(name, "").strip()
    if value:
        return Key(value)
    hint = f'export {name}=..., or write {name} = "..." into {keyring} (chmod 600)'
    try:
        if os.name == "posix" and keyring.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            raise UsageError(
                "other users can read the keyring",
                where=str(keyring),
                hint=f"chmod 600 {keyring}",
                code="keyring-readable",
            )
        table = tomllib.loads(read_file(keyring, 1 << 20).decode())
    except FileNotFoundError:
        raise MissingError(f"no key called {name}", where="api_key", hint=hint) from None
    except OSError as error:
        raise os_error(error, keyring) from None
    except ValueError:
        raise UsageError(
            "the file is not valid TOML",
            where=str(keyring),
            hint=f'a line for each key: {name} = "..."',
            code="not-toml",
        ) from None
    entry = table.get(name)
    if not isinstance(entry, str) or not entry.strip():
        raise MissingError(f"no key called {name}", where="api_key", hint=hint, code="key-not-found")
    return Key(entry.strip())
