"""The lab book, LAB/log: what the user plans, decides and finds, an entry a Markdown file, in a folder for each study.

    log/main/2026-11-28-201500-the-second-stage-pays-3fa2.md    the text, below one line with its record
    log/figures/SHA256.svg                                      a figure that entries keep

The first line of an entry is an HTML comment, which no viewer of Markdown shows; its JSON holds title, time and what
the entry keeps, with a hash over it all and the text.

Invariant: an entry and a figure appear whole, and cerank never changes one; an entry whose content does not give its
hash was changed by hand, and is shown as such.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Literal

import msgspec

from cerank.errors import UsageError, os_error
from cerank.files import disk, json_records
from cerank.files.hashing import sha256_json
from cerank.files.json_records import DECODE_ERRORS, decode_reason
from cerank.files.safe_open import read_file
from cerank.registry import nearest
from cerank.runs.layout import plain_name, slug

_OPEN, _CLOSE = b"<!-- cerank ", b" -->"
_LONGEST = 1 << 22  # bytes of an entry
LARGEST_FIGURE = 1 << 24  # bytes
FIGURES = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
_STUDY = re.compile(r"[^\s/\\](?:[^/\\\x00-\x1f]{0,78}[^\s/\\])?")


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """What an entry pins beside its text, under its hash: the verdicts of a run, a declared plan, or a figure."""

    kind: Literal["run", "plan", "figure"]
    name: str  # the run's id, the plan's title, or the figure's file name
    sha256: str  # of the run's measures and judgments, of the plan, or of the figure's bytes
    short_name: str = ""  # of the run
    says: tuple[str, ...] = ()  # the run's verdicts, or the plan's content, in lines


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The record of an entry."""

    title: str
    study: str
    time: str  # UTC, ISO 8601
    pins: tuple[Pin, ...] = ()
    sha256: str = ""  # of everything else in it, with the text


class WrittenEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as it was read."""

    id: str  # its file's name without the ending
    entry: LogEntry
    text: str  # Markdown
    is_changed: bool  # since it was written


def folder_of(lab: Path) -> Path:
    """Return the folder of a lab's book, whether it exists or not."""
    return lab / "log"


def figure_file(lab: Path, pin: Pin) -> Path:
    """Return the file of a figure that an entry keeps."""
    return folder_of(lab) / "figures" / f"{pin.sha256}{Path(pin.name).suffix.lower()}"


def _content_sha256(entry: LogEntry, text: str) -> str:
    return sha256_json([msgspec.to_builtins(msgspec.structs.replace(entry, sha256="")), text])


def check_study(name: str) -> str:
    """Return the name of a study without blanks around it.

    Raises:
        UsageError: it is empty, longer than 80 characters, or not one plain line.
    """
    study = name.strip()
    if not _STUDY.fullmatch(study):
        hint = "at most 80 characters in one line, without / and \\"
        raise UsageError(f"no name of a study: '{name}'", where="--study", hint=hint, code="bad-study")
    return study


def add(lab: Path, entry: LogEntry, text: str) -> WrittenEntry:
    """Write an entry, whose figures are kept already.

    Raises:
        RunFailedError: the lab cannot be written to.
    """
    whole = msgspec.structs.replace(entry, sha256=_content_sha256(entry, text))
    record = msgspec.json.encode(whole).replace(b"--", b"-\\u002d")  # would end the comment
    folder = folder_of(lab) / slug(whole.study)
    disk.make_folder(folder)
    stamp = re.sub(r"[^0-9]", "", whole.time)[:14]
    name = f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}-{stamp[8:14]}-{plain_name(whole.title, 40)}-{whole.sha256[:4]}"
    number, path = 1, folder / f"{name}.md"
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}.md"
    disk.write(path, _OPEN + record + _CLOSE + b"\n\n" + text.encode())
    return WrittenEntry(id=path.stem, entry=whole, text=text, is_changed=False)


def keep_figure(lab: Path, path: Path) -> Pin:
    """Copy a figure into the book, under the hash of its bytes.

    Raises:
        UsageError: it cannot be read, is too large, or is of a kind that no browser shows.
        RunFailedError: the lab cannot be written to.
    """
    path = path.expanduser()
    if path.suffix.lower() not in FIGURES:
        hint = f"one of {', '.join(FIGURES)}"
        raise UsageError("not a figure that a page can show", where=str(path), hint=hint, code="bad-figure")
    try:
        data = read_file(path, LARGEST_FIGURE + 1)
    except OSError as error:
        raise os_error(error, path, UsageError, doing="cannot read the figure") from error
    if len(data) > LARGEST_FIGURE:
        limit = f"larger than {LARGEST_FIGURE >> 20} MiB"
        raise UsageError(limit, where=str(path), hint="write it with a lower resolution", code="bad-figure")
    pin = Pin(kind="figure", name=path.name, sha256=hashlib.sha256(data).hexdigest())
    target = figure_file(lab, pin)
    if not target.exists():
        disk.make_folder(target.parent)
        disk.write(target, data)
    return pin


def load_figure(lab: Path, pin: Pin) -> bytes | None:
    """Return the bytes of a figure; None where its file is gone, or not what was kept."""
    try:
        data = read_file(figure_file(lab, pin), LARGEST_FIGURE + 1)
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == pin.sha256 else None


def load_all(lab: Path, study: str = "") -> tuple[tuple[WrittenEntry, ...], tuple[str, ...]]:
    """Return the entries of a study (of all, for ""), the oldest first, and a message for each file that is none."""
    entries, problems = [], []
    for path in sorted(folder_of(lab).glob("*/*.md")):
        try:
            written = _read(path)
        except (OSError, *DECODE_ERRORS) as error:
            problems.append(f"{path}: not an entry of the lab book: {decode_reason(error)}")
            continue
        if not study or written.entry.study == study:
            entries.append(written)
    return tuple(sorted(entries, key=lambda written: (written.entry.time, written.id))), tuple(problems)


def _read(path: Path) -> WrittenEntry:
    data = read_file(path, _LONGEST)
    first, _, rest = data.partition(b"\n")
    if not (first.startswith(_OPEN) and first.rstrip().endswith(_CLOSE)):
        raise ValueError("its first line is no record")
    entry = json_records.decode(first.rstrip()[len(_OPEN) : -len(_CLOSE)], LogEntry)
    text = rest.removeprefix(b"\n").decode("utf-8", "replace")
    is_changed = _content_sha256(entry, text) != entry.sha256
    return WrittenEntry(id=path.stem, entry=entry, text=text, is_changed=is_changed)


def find(lab: Path, name: str) -> WrittenEntry:
    """Return the entry whose id or title that is, or whose id alone contains it.

    Raises:
        UsageError: there is none, or there are several.
    """
    entries, _ = load_all(lab)
    fitting = [written for written in entries if name in {written.id, written.entry.title}]
    fitting = fitting or [written for written in entries if name and name in written.id]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        hint = "; ".join(written.id for written in fitting[:5])
        raise UsageError(f"'{name}' fits {len(fitting)} entries", hint=hint, code="entry-ambiguous")
    names = [written.entry.title for written in entries]
    hint = nearest(name, names) if names else "`cerank log add` writes the first one"
    raise UsageError(f"no entry of the lab book is called '{name}'", hint=hint, code="entry-not-found")
