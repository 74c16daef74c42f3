"""Kills: at random times, and before every single operation on the disk."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from cerank.core.metrics import Event
from cerank.files import disk, journal
from cerank.runs.layout import RunFolder

from .forks import all_bits, difference, ended, fast_plan, finish, killed_after, log_of, small_run, worker


def result(tried: int, bad: list[str], **more: Any) -> dict[str, Any]:
    """How often a promise was tried, and held."""
    return {"tried": tried, "held": tried - len(bad), "bad": bad[:5], **more}


def prepared(folder: str, *, adopts: bool = False) -> tuple[Any, Any, RunFolder, dict[str, object]]:
    """Plan, settings, an undisturbed run, and its bits; with `adopts`, of a plan that takes a stage over from a run."""
    plan, settings = fast_plan(Path(folder))
    calm = small_run(Path(folder), plan, settings)
    assert finish(calm) == 0, log_of(calm)
    if adopts:
        recipe = msgspec.structs.replace(plan.recipe, chain=("contrastive",))
        plan = msgspec.structs.replace(plan, recipe=recipe, shares=True)
        calm = small_run(Path(folder), plan, settings, 1)
        assert finish(calm) == 0, log_of(calm)
        assert calm.reused_stage(0, "contrastive").exists()
    return plan, settings, calm, all_bits(calm)


def random_kills(folder: str, count: int, seed: int = 0) -> dict[str, Any]:
    """`count` times `kill -9` at uniform times, some eight a run; every run must end with the bits of a calm one."""
    plan, settings, _, wanted = prepared(folder)
    began = time.monotonic()
    again = small_run(Path(folder), plan, settings, 59)
    _forget_scores(Path(plan.cache))
    assert finish(again) == 0
    longest = time.monotonic() - began
    draw, done, bad, second = random.Random(seed), 0, [], 2
    while done < count:
        run = small_run(Path(folder), plan, settings, second % 59)
        second += 1
        _forget_scores(Path(plan.cache))
        began, before = time.monotonic(), done
        for _ in range(min(8, count - done)):
            if killed_after(run, draw.uniform(0.0, longest)) >= 0:
                break
            done += 1
        if done == before:
            longest = min(longest, time.monotonic() - began)  # the calm run was held up by something else
        code = finish(run)
        wrong = difference(run, wanted) if code == 0 else f"exit {code}: {log_of(run)}"
        mismatched = [e.text for e in journal.read(run.events, Event) if e.kind in {"replay mismatch", "rejected"}]
        bad += [wrong] if wrong else mismatched[:1]
        shutil.rmtree(run.path)
    return result(done, bad, runs=second - 2)


def in_a_step(folder: str, count: int, seed: int = 0) -> dict[str, Any]:
    """Kills in the middle of a step, its gradients computed and its update not made, as the system's killer does."""
    from cerank.training.trainer import Trainer

    plan, settings, _, wanted = prepared(folder)
    draw, bad = random.Random(seed), []

    def dies(at: int) -> None:
        real, left = Trainer.forward_backward, [at]

        def add(self: Any, *given: Any) -> Any:
            found = real(self, *given)
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)
            return found

        mock.patch.object(Trainer, "forward_backward", add).start()

    for number in range(count):
        run = small_run(Path(folder), plan, settings, 2 + number % 50)
        _forget_scores(Path(plan.cache))
        at = draw.randint(1, 8)  # of the steps of both stages
        code = ended(worker(run, lambda at=at: dies(at)))
        wrong = "" if code == -signal.SIGKILL else f"exit {code}: {log_of(run)}"
        wrong = wrong or (log_of(run) if finish(run) else difference(run, wanted))
        bad += [f"step {at}: {wrong}"] if wrong else []
        shutil.rmtree(run.path)
    return result(count, bad)


def _forget_scores(cache: Path) -> None:
    shutil.rmtree(cache / "scores", ignore_errors=True)


class Snapshots:
    """Copies of a run and of the kept scores as a kill before each operation would leave them: an observer."""

    def __init__(self, run: RunFolder, cache: Path, target: Path, every: int, offset: int) -> None:
        self._run, self._cache, self._target = run, cache, target
        self._every, self._offset, self._at = every, offset, 0

    def __call__(self, name: str, path: Path) -> None:
        number, self._at = self._at, self._at + 1
        if number % self._every == self._offset:
            kept = self._target / f"{number:06d}-{name}"
            shutil.copytree(self._run.path, kept / "run", symlinks=True, ignore=_missing_ok)
            if (self._cache / "scores").exists():
                shutil.copytree(self._cache / "scores", kept / "scores")
            (kept / "what").write_text(f"before {name} of {path.relative_to(path.anchor)}")


def _missing_ok(folder: str, names: list[str]) -> set[str]:
    """The beat's files come and go in their own thread."""
    return {name for name in names if name in {".progress.json.tmp", "progress.json"}}


def crash_points(folder: str, every: int = 1, offset: int = 0, *, adopts: bool = False) -> dict[str, Any]:
    """Kills before each `every`-th operation; what each leaves is gone on with, and must end with the same bits."""
    plan, settings, _, wanted = prepared(folder, adopts=adopts)
    run = small_run(Path(folder), plan, settings, 2)
    target = Path(folder) / "snapshots"
    target.mkdir()
    cache = Path(plan.cache)
    _forget_scores(cache)
    stack = ExitStack()

    def before() -> None:
        stack.enter_context(disk.observe(Snapshots(run, cache, target, every, offset)))

    code = ended(worker(run, before))
    assert code == 0, log_of(run)
    shutil.rmtree(run.path)
    bad, points = [], sorted(target.iterdir())
    for point in points:
        _forget_scores(cache)
        if (point / "scores").exists():
            shutil.copytree(point / "scores", cache / "scores")
        shutil.move(point / "run", run.path)
        code = finish(run)
        wrong = difference(run, wanted) if code == 0 else f"exit {code}: {log_of(run)}"
        if wrong:
            bad.append(f"{point.name}: {(point / 'what').read_text()}: {wrong}")
        shutil.rmtree(run.path)
        shutil.rmtree(point)
    return result(len(points), bad)
