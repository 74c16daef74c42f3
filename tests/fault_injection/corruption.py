"""Damage to the files of a run: a flipped bit, a cut, zeros, a missing file, in each file in turn."""

from __future__ import annotations

import random
import shutil
import signal
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cerank.app.checks.verify_run import verify
from cerank.core.metrics import Event
from cerank.errors import CerankError
from cerank.files import journal
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.worker import repair

from .forks import difference, ended, finish, killed_at, log_of, operations, small_run, worker
from .kills import prepared, result

KINDS = ("flip", "cut", "zero", "delete")
# no promise: a person's text, advice that is rewritten, and the lock's file, whose content is advice
TAKEN_UP = {"stages", "scores"}  # sealed folders are moved aside by who takes them up
ADVICE = {"log.txt", "progress.json", "lease", "stop"}


def spoilt(path: Path, kind: str, draw: random.Random) -> None:
    """Damages one file."""
    data = bytearray(path.read_bytes())
    path.unlink()  # not written in place: an adopted model is linked from another run
    if kind == "delete":
        return
    if kind == "flip":
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif kind == "cut":
        del data[draw.randrange(len(data)) :]
    else:
        start = draw.randrange(len(data))
        size = min(len(data) - start, draw.randrange(1, 4096))
        before = bytes(data)
        data[start : start + size] = bytes(size)
        if bytes(data) == before:
            data[start] ^= 1
    path.write_bytes(bytes(data))


def files_of(run: RunFolder) -> list[Path]:
    """The files that a promise covers; what is half made, and so hidden, is not among them."""
    found = (path for path in sorted(run.path.rglob("*")) if path.is_file() and path.stat().st_size)
    shown = (path for path in found if not any(part.startswith(".") for part in path.relative_to(run.path).parts))
    return [path for path in shown if path.name not in ADVICE]


def finished(folder: str, count: int, seed: int = 0) -> dict[str, Any]:
    """Files of a finished run: `verify` names the file, the run is marked, the others are not, and going on mends it.

    What cannot be made again (plan, recipe, readings) stays marked.
    """
    _, settings, calm, wanted = prepared(folder)
    other = RunFolder(calm.path.with_name(calm.name + "-other"))
    shutil.copytree(calm.path, other.path)
    run = RunFolder(calm.path.with_name(calm.name + "-spoilt"))
    draw, bad, mended = random.Random(seed), [], 0
    names = [path.relative_to(calm.path) for path in files_of(calm)]
    draw.shuffle(names)
    for number in range(count):
        shutil.copytree(calm.path, run.path)
        name, kind = names[number % len(names)], KINDS[(number // len(names) + number) % len(KINDS)]
        spoilt(run.path / name, kind, draw)
        wrong = _found(run, other, settings.lab, name.as_posix(), kind)
        if not wrong and not _is_lost(name.as_posix()) and number % 4 == 0:
            code = finish(run)
            wrong = (
                difference(run, _makeable(run, wanted, name.as_posix())) if code == 0 else f"exit {code}: {log_of(run)}"
            )
            wrong = wrong or "; ".join(verify(run, datetime.now(UTC)).problems)
            mended += 1
        if wrong:
            bad.append(f"{kind} {name}: {wrong}")
        shutil.rmtree(run.path)
    return result(count, bad, mended=mended, files=len(names))


def _is_lost(name: str) -> bool:
    """Whether no worker can write the file again."""
    # a teacher is made for a stage to learn from, and not again once that is trained
    return name in {"plan.json", "recipe.toml", "readings.jsonl", "events.jsonl"} or name.startswith("teachers/")


def _makeable(run: RunFolder, wanted: dict[str, object], name: str) -> dict[str, object]:
    """What can be wanted of a mended run: the last checkpoint of a finished stage, once damaged, stays aside."""
    folder = Path(name).parent.as_posix()
    is_aside = "checkpoints" in name and not (run.path / folder).exists()
    return {path: data for path, data in wanted.items() if not (is_aside and path.startswith(folder + "/"))}


def _found(run: RunFolder, other: RunFolder, lab: Path, name: str, kind: str) -> str:
    if name == "done.json" and kind == "delete":  # then it is not finished, which nothing says is wrong
        return "" if run_store.status(run, datetime.now(UTC)).state == "lost" else "not lost"
    problems = verify(run, datetime.now(UTC)).problems
    folder = Path(name).parent.as_posix()
    if not any(name in problem or (folder != "." and folder in problem) for problem in problems):
        return f"not found: {problems}"
    states = {row.folder.name: row.status for row in run_store.list_runs(lab, datetime.now(UTC))}
    if states[run.name].state != "damaged" or not states[run.name].text:
        return f"not marked: {states[run.name]}"
    return "" if states[other.name].state == "finished" else "another run is disturbed"


def killed(folder: str, plan: Any, settings: Any, parts: Sequence[float]) -> list[RunFolder]:
    """Runs that were killed after these parts of their operations on the disk."""
    again = small_run(Path(folder), plan, settings, 58)
    forget_scores(plan)
    whole, found = operations(again), []
    shutil.rmtree(again.path)
    for number, part in enumerate(parts):
        run = small_run(Path(folder), plan, settings, 2 + number)
        forget_scores(plan)
        code = killed_at(run, int(part * whole))
        assert code == -signal.SIGKILL, f"exit {code}: {log_of(run)}"
        found.append(run)
    return found


def forget_scores(plan: Any) -> None:
    """Makes the next run compute all of its scores."""
    shutil.rmtree(Path(plan.cache) / "scores", ignore_errors=True)


def unfinished(folder: str, count: int, seed: int = 0) -> dict[str, Any]:
    """Files of a killed run: going on moves the damaged one aside and ends with the same bits, or says why not."""
    plan, settings, calm, wanted = prepared(folder)
    draw, bad = random.Random(seed), []
    begun = killed(folder, plan, settings, [draw.uniform(0.15, 0.95) for _ in range(4)])
    spoil = RunFolder(calm.path.with_name(calm.name + "-spoilt"))
    for number in range(count):
        shutil.copytree(begun[number % len(begun)].path, spoil.path)
        name = draw.choice(files_of(spoil)).relative_to(spoil.path)
        kind = KINDS[number % len(KINDS)]
        spoilt(spoil.path / name, kind, draw)
        code = finish(spoil)
        wrong = _went_on(spoil, code, name.as_posix(), kind, wanted)
        if wrong:
            bad.append(f"{kind} {name}: {wrong}")
        shutil.rmtree(spoil.path)
    return result(count, bad)


def _went_on(run: RunFolder, code: int, name: str, kind: str, wanted: dict[str, object]) -> str:
    status = run_store.status(run, datetime.now(UTC))
    if name == "plan.json":
        return "" if code and status.state == "damaged" and "plan.json" in status.text else f"{code} {status}"
    if code:
        return f"exit {code}: {log_of(run)}"
    wrong = difference(run, _makeable(run, wanted, name))
    if wrong and name.startswith("teachers/") and "teachers/" in wrong:  # its stage is trained: moved aside, and said
        told = [event.text for event in journal.read_valid_rows(run.events, Event)[0] if event.kind == "rejected"]
        return "" if told or kind == "delete" else wrong
    if wrong and name == "readings.jsonl":  # rows before the checkpoint are lost for good: said, not hidden
        return "" if status.state == "damaged" and "have no reading" in status.text else f"{wrong}; {status}"
    if wrong:
        return wrong
    told = [event.text for event in journal.read_valid_rows(run.events, Event)[0] if event.kind == "rejected"]
    is_seen = kind == "delete" or told or _is_cut_at_a_line(name, kind)
    return "" if is_seen else "nothing was said of it"


def _is_cut_at_a_line(name: str, kind: str) -> bool:
    """Whether it is as a kill leaves a journal: an unfinished last line is no damage, and is cut without a word."""
    return name.endswith(".jsonl") and kind in {"cut", "flip", "zero"}


def hash_lists(folder: str, count: int, seed: int = 0) -> dict[str, Any]:
    """The list of hashes of a killed run damaged, and two workers started at once: one makes the same bits."""
    plan, settings, calm, wanted = prepared(folder)
    draw, bad = random.Random(seed), []
    begun = killed(folder, plan, settings, [0.05, 0.3, 0.5, 0.7, 0.9])
    spoil = RunFolder(calm.path.with_name(calm.name + "-spoilt"))
    for number in range(count):
        shutil.copytree(begun[number % len(begun)].path, spoil.path)
        kind = (*KINDS, "zeros", "empty", "garbage")[number % 7]
        fill(spoil.checksums, kind, draw)
        children = [worker(spoil), worker(spoil)]
        codes = sorted(ended(child) for child in children)
        if codes[0] != 0 or codes[1] not in {0, 4}:
            bad.append(f"{kind} {number}: exits {codes}: {log_of(spoil)}")
        elif wrong := difference(spoil, wanted) or "; ".join(verify(spoil, datetime.now(UTC)).problems):
            bad.append(f"{kind} {number}: {wrong}")
        shutil.rmtree(spoil.path)
    return result(count, bad)


def fill(path: Path, kind: str, draw: random.Random) -> None:
    """Damages one file: as `spoilt`, or wholly."""
    if kind == "zeros":
        path.write_bytes(bytes(path.stat().st_size))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "garbage":
        path.write_bytes(draw.randbytes(draw.randrange(300)) + b"\n")
    else:
        spoilt(path, kind, draw)


def mendings(folder: str, count: int, seed: int = 0) -> dict[str, Any]:
    """Up to three files of a run damaged in any way: shown, mended and mended again without any other error than ours.

    After mending nothing is found wrong any more, but for a plan, which is refused with its name.
    """
    plan, settings, calm, _ = prepared(folder)
    draw, bad = random.Random(seed), []
    begun = [calm, *killed(folder, plan, settings, [0.01, 0.1, 0.3, 0.5, 0.7, 0.9])]
    spoil = RunFolder(calm.path.with_name(calm.name + "-spoilt"))
    for number in range(count):
        shutil.copytree(begun[number % len(begun)].path, spoil.path)
        done = []
        for path in draw.sample(files_of(spoil), k=min(len(files_of(spoil)), draw.choice([1, 1, 2, 3]))):
            kind = draw.choice((*KINDS, "zeros", "empty", "garbage"))
            fill(path, kind, draw)
            done.append(f"{kind} {path.relative_to(spoil.path)}")
        try:
            wrong = _mended(spoil, plan)
        except Exception:  # noqa: BLE001 - that there is none is the promise
            wrong = traceback.format_exc()
        bad += [f"{', '.join(done)}: {wrong}"] if wrong else []
        shutil.rmtree(spoil.path)
    return result(count, bad)


def _mended(run: RunFolder, plan: Any) -> str:
    run_store.row(run, datetime.now(UTC))
    try:
        repair.repair_run(run)
        repair.remove_leftovers(run, plan)
        left = [one for one in repair.find_problems(run) if one.path.relative_to(run.path).parts[0] not in TAKEN_UP]
    except CerankError as error:
        return "" if run.plan.name in error.where else f"no plan is named: {error}"
    # a recipe's text cannot be made again
    return "; ".join(str(one) for one in left if one.path != run.recipe)
