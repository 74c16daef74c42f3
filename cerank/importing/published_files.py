"""The published files that cerank can import, from `published_files.toml`: name, address, checksum, size and license.

Invariant: nothing here is fetched; `download` does that, and checks what it got.
"""

from __future__ import annotations

import tomllib
from importlib import resources

import msgspec

from cerank.files import json_records
from cerank.registry import Registry


class PublishedFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A published file with its address, checksum, size and license."""

    name: str
    format: str  # name of the format in cerank; "" if `cerank data import` does not read the file
    file: str  # the publisher's name
    url: str
    md5: tuple[str, ...] = ()  # any of them will do: a publisher may have replaced the file
    size: int = 0  # bytes; 0: not stated
    license: str = "not stated"
    by_hand: str = ""  # why no program can download it; "" if cerank can
    used_by: str = ""  # command that reads the file, where it is no format of `cerank data import`
    note: str = ""


PUBLISHED_FILES: Registry[PublishedFile] = Registry("published file")
_TABLES = tomllib.loads(resources.files(__package__).joinpath("published_files.toml").read_text(encoding="utf8"))
for _name, _values in _TABLES.items():
    PUBLISHED_FILES.add(_name)(json_records.convert(_values | {"name": _name}, PublishedFile))
