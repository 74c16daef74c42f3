"""Power cuts: what was not synced is lost, whole or in part; what is left must open, and end with the same bits."""

from __future__ import annotations

import os
import resource
import shutil
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cerank.files import disk, journal
from cerank.files.journal import Journal
from cerank.runs import run_store
from cerank.runs.layout import ReadingRow, RunFolder

from .forks import difference, ended, finish, log_of, small_run, worker
from .kills import prepared, result

KINDS = ("dropped", "torn", "renamed")


class Durable:
    """What a power cut would leave of a folder: names as of its last sync, contents as of each file's.

    An observer of the disk: it is called before each operation, and so sees what the one before has done. It keeps
    every file open that it knows, for the system must not give its number to another one.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[int, dict[str, int]] = {}
        self.contents: dict[int, bytes] = {}
        self._held: dict[int, int] = {}
        self._last: tuple[str, Path] | None = None
        for folder, _, names in os.walk(root):  # what stands before the cut is taken for durable
            self._sync_folder(Path(folder))
            for name in names:
                self._sync(Path(folder, name))

    def __call__(self, name: str, path: Path) -> None:
        last, self._last = self._last, (name, path)
        if last and last[1].exists():
            if last[0] == "sync":
                self._sync(last[1])
            elif last[0] == "sync-folder":
                self._sync_folder(last[1])

    def _hold(self, path: Path) -> int:
        number = path.stat().st_ino
        if number not in self._held:
            self._held[number] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return number

    def _sync(self, path: Path) -> None:
        if path.is_dir():
            self._sync_folder(path)
        elif path.is_relative_to(self.root):
            self.contents[self._hold(path)] = path.read_bytes()

    def _sync_folder(self, path: Path) -> None:
        if path.is_relative_to(self.root):
            names = {entry.name: self._hold(entry) for entry in path.iterdir()}
            self._names[self._hold(path)] = names

    def write(self, target: Path, kind: str) -> None:
        """The folder after the cut.

        dropped: nothing but what was synced. torn: the names as they are, and half of what was not synced.
        renamed: the names as they are, and nothing of what was not synced.
        """
        if kind == "dropped":
            self._rebuilt(self.root.stat().st_ino, target)
            return
        for folder, _, names in os.walk(self.root):
            place = target / Path(folder).relative_to(self.root)
            place.mkdir(parents=True, exist_ok=True)
            for name in names:
                path = Path(folder, name)
                now = path.read_bytes()
                kept = self.contents.get(path.stat().st_ino, b"")
                if kind == "torn" and len(now) > len(kept):
                    kept = now[: len(kept) + (len(now) - len(kept)) // 2]
                (place / name).write_bytes(kept)

    def _rebuilt(self, number: int, target: Path) -> None:
        target.mkdir()
        for name, child in self._names.get(number, {}).items():
            if child in self._names:
                self._rebuilt(child, target / name)
            elif Path(f"/proc/self/fd/{self._held[child]}").is_dir():
                (target / name).mkdir()
            else:
                (target / name).write_bytes(self.contents.get(child, b""))


class Cuts:
    """Writes down what each kind of cut before an operation would leave: an observer."""

    def __init__(self, run: RunFolder, target: Path, every: int, offset: int) -> None:
        self._durable = Durable(run.path)
        self._run, self._target, self._every, self._offset, self._at = run, target, every, offset, 0

    def __call__(self, name: str, path: Path) -> None:
        number, self._at = self._at, self._at + 1
        if "progress" in path.name:  # the beat's own thread; advice
            return
        self._durable(name, path)
        if number % self._every == self._offset:
            kind = KINDS[number // self._every % len(KINDS)] if self._every > 1 else None
            for one in [kind] if kind else KINDS:
                kept = self._target / f"{number:06d}-{one}"
                kept.mkdir()
                self._durable.write(kept / "run", one)
                (kept / "what").write_text(f"{one} before {name} of {path.relative_to(path.anchor)}")


def cuts(folder: str, every: int = 1, offset: int = 0, resumes: int = 1) -> dict[str, Any]:
    """Cuts before each `every`-th operation; what is left must open, and each `resumes`-th end with the same bits."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    plan, settings, _, wanted = prepared(folder)
    run = small_run(Path(folder), plan, settings, 2)
    target = Path(folder) / "cuts"
    target.mkdir()
    stack = ExitStack()

    def before() -> None:
        stack.enter_context(disk.observe(Cuts(run, target, every, offset)))

    code = ended(worker(run, before))
    assert code == 0, log_of(run)
    shutil.rmtree(run.path)
    bad, points = [], sorted(target.iterdir())
    for number, point in enumerate(points):
        shutil.move(point / "run", run.path)
        wrong = _opens(run)
        if not wrong and number % resumes == 0:
            code = finish(run)
            wrong = difference(run, wanted) if code == 0 else f"exit {code}: {log_of(run)}"
        if wrong:
            bad.append(f"{point.name}: {(point / 'what').read_text()}: {wrong}")
        shutil.rmtree(run.path)
        shutil.rmtree(point)
    return result(len(points), bad)


def _opens(run: RunFolder) -> str:
    row = run_store.row(run, datetime.now(UTC))
    if row.plan is None or row.status.state == "damaged":
        return f"{row.status.state}: {row.status.text}"
    journal.read(run.readings, ReadingRow)
    return ""


def lost_seconds(folder: str, rows: int = 400) -> dict[str, Any]:
    """A journal with rows at odd times and long pauses, looked at every 2 seconds as the beat does, and cut anywhere.

    The oldest row that a cut takes must be younger than 5 seconds.
    """
    import random

    from cerank.core.metrics import Event

    draw, now, bad, oldest = random.Random(5), 0.0, [], 0.0
    path = Path(folder) / "events.jsonl"
    durable = Durable(Path(folder))
    written: list[float] = []
    beat = 2.0
    with disk.observe(durable), Journal(path, Event, clock=lambda: now) as out:
        for number in range(rows):
            following = now + draw.choice([0.01, 0.2, 1.0, 3.0, 4.9, 30.0]) * draw.random()
            while beat <= following:
                now = beat
                oldest = max(oldest, _age(durable, path, written, now, bad))
                out.sync_if_due()
                durable("look", path)
                beat += 2.0
            now = following
            oldest = max(oldest, _age(durable, path, written, now, bad))
            out.append(Event("row", str(number), ""))
            durable("look", path)
            written.append(now)
    return result(rows, bad, oldest=round(oldest, 3))


def _age(durable: Durable, path: Path, written: list[float], now: float, bad: list[str]) -> float:
    """How old the oldest row is that a cut now would take."""
    kept = durable.contents.get(path.stat().st_ino, b"").count(b"\n")
    age = now - written[kept] if kept < len(written) else 0.0
    if age > 5.0:
        bad.append(f"at {now:.2f} s a row of {age:.2f} s would be lost")
    return age
