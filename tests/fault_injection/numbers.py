"""Numbers that are none, other inputs and other versions at a resume, and a replay that differs."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from cerank.core.metrics import Event, StepMetrics
from cerank.files import journal, json_records
from cerank.runs.layout import RunFolder
from cerank.runs.records import Attempt

from .forks import FAST, all_bits, ended, fast_plan, finish, killed_after, log_of, small_run, worker
from .kills import prepared, result


def _bad_at(step: int, value: float) -> None:
    """From here on, the loss of that step of any stage is `value`."""
    import torch

    from cerank.training.trainer import Trainer

    real = Trainer.forward_backward

    def add(self: Any, passes: Any, batch: Any, at: int) -> list[torch.Tensor]:
        losses = real(self, passes, batch, at)
        return [torch.full_like(losses[0], value)] if at == step else losses

    mock.patch.object(Trainer, "forward_backward", add).start()


def non_finite(folder: str, steps: Sequence[int] = (1, 2, 3, 4)) -> dict[str, Any]:
    """NaN and infinities at each step: the run stops, the step has no reading, and the weights are the step before's.

    With skip:1 it leaves the one update out, says so, and goes on.
    """
    plan, settings, _, wanted = prepared(folder)
    bad, tried, second = [], 0, 2
    for step in steps:
        for value in (float("nan"), float("inf"), float("-inf")):
            run = small_run(Path(folder), plan, settings, second)
            second += 1
            tried += 1
            code = ended(worker(run, lambda step=step, value=value: _bad_at(step, value)))
            failure = json.loads(run.failure.read_bytes()) if run.failure.exists() else {}
            rows = [row.step for row in journal.read(run.readings, _rows_kind()) if isinstance(row, StepMetrics)]
            saved = run.checkpoint_steps(0, "contrastive")
            if code != 1 or "not finite" not in failure.get("what", "") or rows != list(range(1, step)):
                bad.append(f"step {step}, {value}: exit {code}, {failure}, {rows}")
            elif saved[-1:] != ([step - 1] if step > 1 else []):
                bad.append(f"step {step}: checkpoints {saved}")
            elif finish(run) or all_bits(run) != wanted:  # from the weights of the step before, to the calm run's end
                bad.append(f"step {step}: going on does not end with the same bits")
    stage = {**FAST, "on_nonfinite": "skip:1"}
    tolerant, settings = fast_plan(Path(folder) / "skip", chain=["contrastive"], stages={"contrastive": stage})
    run = small_run(Path(folder), tolerant, settings)
    tried += 1
    code = ended(worker(run, lambda: _bad_at(2, float("nan"))))
    told = [event.text for event in journal.read(run.events, Event) if "update left out" in event.text]
    if code or len(told) != 1 or run.damage.exists():
        bad.append(f"skip:1: exit {code}, {told}: {log_of(run)}")
    return result(tried, bad)


def _rows_kind() -> Any:
    from cerank.runs.layout import ReadingRow

    return ReadingRow


def out_of_memory(folder: str, count: int, seed: int = 0) -> dict[str, Any]:
    """A device that holds few tokens, from a random step on: less at once, the same groups a step, the same losses.

    Without dropout, whose masks are drawn for what goes through the model at once.
    """
    stage = {**FAST, "dropout": 0.0, "microbatch": 64}
    plan, settings = fast_plan(Path(folder), chain=["contrastive"], stages={"contrastive": stage})
    calm = small_run(Path(folder), plan, settings)
    assert finish(calm) == 0, log_of(calm)
    wanted, draw, bad = _steps(calm), random.Random(seed), []
    for number in range(count):
        run = small_run(Path(folder), plan, settings, 2 + number % 50)
        at, limit = draw.randint(1, 4), draw.randint(24, 40)
        code = ended(worker(run, lambda at=at, limit=limit: _holds(at, limit)))
        found = _steps(run)
        told = _events(run, "out of memory")
        if code or not told or len(told) > 4:
            bad.append(f"{limit} tokens from step {at}: exit {code}, {len(told)} events: {log_of(run)}")
        elif [row.groups for row in found] != [row.groups for row in wanted]:
            bad.append(f"{limit} tokens from step {at}: groups a step changed")
        elif max(abs(one.loss - other.loss) for one, other in zip(found, wanted, strict=True)) > 1e-5:
            bad.append(f"{limit} tokens from step {at}: {[row.loss for row in found]}, {[row.loss for row in wanted]}")
    return result(count, bad)


def _holds(step: int, limit: int) -> None:
    """From that step on, the device holds so many tokens."""
    import torch

    from cerank.models.forward_pass import ForwardPass
    from cerank.training.trainer import Trainer

    real, whole, now = Trainer.forward_backward, ForwardPass.scoring, [0]

    def add(self: Any, passes: Any, batch: Any, at: int) -> float:
        now[0] = at
        try:
            return real(self, passes, batch, at)
        finally:
            now[0] = 0  # re-ranking has a bound of its own

    @contextlib.contextmanager
    def scoring(self: Any) -> Any:
        with whole(self) as score:

            def guarded(pairs: Any) -> Any:
                if now[0] >= step and sum(len(pair.ids) for pair in pairs) > limit:
                    raise torch.OutOfMemoryError("out of memory. Tried to allocate too much")
                return score(pairs)

            yield guarded

    mock.patch.object(Trainer, "forward_backward", add).start()
    mock.patch.object(ForwardPass, "scoring", scoring).start()


def _steps(run: RunFolder) -> list[StepMetrics]:
    return [row for row in journal.read(run.readings, _rows_kind()) if isinstance(row, StepMetrics)]


def resumed_elsewhere(folder: str) -> dict[str, Any]:
    """A resume with other versions is marked, one with another input refused, and one that computes otherwise shown."""
    plan, settings, _, _ = prepared(folder)
    bad = []
    run = _begun(Path(folder), plan, settings, 2)
    before = json_records.load(run.attempt(1), Attempt)
    json_records.save(run.attempt(1), msgspec.structs.replace(before, versions={**before.versions, "torch": "1.0"}))
    run.checksums.unlink()
    finish(run)
    if not any("torch 1.0 -> " in event.text for event in _events(run, "environment changed")):
        bad.append("another torch is not told of")
    run = _begun(Path(folder), plan, settings, 3)
    rows = run.readings.read_bytes().splitlines()
    changed = msgspec.structs.replace(msgspec.json.decode(rows[-1], type=_rows_kind()), seconds=7.0)
    if isinstance(changed, StepMetrics):
        changed = msgspec.structs.replace(changed, loss=changed.loss + 1e-7)
        with journal.Journal(run.readings, _rows_kind()) as out:
            out.append(changed)
    finish(run)
    if isinstance(changed, StepMetrics) and changed.step > max(run.checkpoint_steps(0, "contrastive") or [0]):
        bad += [] if _events(run, "replay mismatch") else ["a replay that differs is not told of"]
    run = _begun(Path(folder), plan, settings, 4)
    with (Path(folder) / "data" / "docs.tsv").open("a") as file:
        file.write("d999\tanother document\n")
    code = finish(run)
    text = json.loads(run.failure.read_bytes())["what"] if run.failure.exists() else ""
    if code != 1 or "changed since the plan was made" not in text:
        bad.append(f"a changed input: exit {code}, {text}")
    return result(3, bad)


def _begun(folder: Path, plan: Any, settings: Any, second: int) -> RunFolder:
    """A run killed while it trains."""
    seconds = 0.3
    while True:
        run = small_run(folder, plan, settings, second)
        killed_after(run, seconds)
        if run.readings.exists() and run.readings.stat().st_size and not run.done.exists():
            return run
        seconds = seconds + 0.1 if not run.done.exists() else 0.25


def _events(run: RunFolder, kind: str) -> list[Event]:
    return [event for event in journal.read(run.events, Event) if event.kind == kind]
