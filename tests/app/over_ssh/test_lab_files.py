"""Runs that move from one lab to another: whole, checked, continued after a cut, and never over another run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cerank.app.over_ssh import copy_runs, lab_files
from cerank.app.over_ssh.lab_files import FilePiece, FileToReceive, LabFiles, SeenFile, tail_of
from cerank.errors import HeldError, RunFailedError, UsageError
from cerank.files import json_records
from cerank.files.disk import DamagedError
from cerank.files.lease import Lease
from cerank.runs import checksums, run_store, user_labels
from cerank.runs.layout import RunFolder, runs_folder
from cerank.runs.records import Done
from cerank.worker import repair
from tests.refusals import refused
from tests.scheduler.conftest import TOML, plan_for

BIG = bytes(range(256)) * 40


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run with a file that has a checksum, a model, and three checkpoints."""
    folder = run_store.create(tmp_path / "here", plan_for(label="first try"), TOML, datetime.now(UTC))
    (folder.path / "rankings").mkdir()
    checksums.write(folder, folder.path / "rankings" / "a.run.gz", BIG)
    for step in (5, 10, 1_000_000):
        checkpoint = folder.path / "stages" / "1-contrastive" / "checkpoints" / f"step-{step:06d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "weights").write_bytes(f"{step}".encode())
        (checkpoint / "COMPLETE.json").write_bytes(b"")
    folder.lease.touch()
    folder.job.touch()
    folder.readings.touch()
    return folder


@pytest.fixture(autouse=True)
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoints of these runs are no real ones."""
    monkeypatch.setattr("cerank.files.manifests.verify_folder", lambda _: None)


def paths(folder: RunFolder) -> set[str]:
    return {path.relative_to(folder.path).as_posix() for path in folder.path.rglob("*") if path.is_file()}


def there(tmp_path: Path, run: RunFolder) -> RunFolder:
    return RunFolder(runs_folder(tmp_path / "there") / run.name)


def both(tmp_path: Path) -> tuple[LabFiles, LabFiles]:
    return LabFiles(tmp_path / "here"), LabFiles(tmp_path / "there")


@pytest.mark.parametrize(("which", "steps"), [("none", []), ("last", [1_000_000]), ("all", [5, 10, 1_000_000])])
def test_a_run_arrives_whole_with_the_checkpoints_asked_for(
    tmp_path: Path, run: RunFolder, which: lab_files.Checkpoints, steps: list[int]
) -> None:
    (copied,) = copy_runs.copy_runs(*both(tmp_path), ["first try"], which)
    copy = there(tmp_path, run)
    assert copied.outcome == "copied"
    assert copy.checkpoint_steps(0, "contrastive") == steps
    assert (copy.path / "rankings" / "a.run.gz").read_bytes() == BIG
    assert paths(copy) >= {"plan.json", "recipe.toml", "readings.jsonl", "seals.jsonl"}
    assert not {"lease", "job.json"} & paths(copy)
    assert run_store.find(tmp_path / "there", "first try") == copy
    assert list(runs_folder(tmp_path / "there").iterdir()) == [copy.path]
    assert copy_runs.copy_runs(*both(tmp_path), [], which)[0].outcome == "there already"


class CutLine(LabFiles):
    """A lab that takes so many pieces, and then none."""

    def __init__(self, lab: Path, pieces: int) -> None:
        super().__init__(lab)
        self.left = pieces

    def write(self, run: str, pieces: Sequence[FilePiece], data: bytes) -> None:
        if self.left <= 0:
            for lease in self._leases.values():
                lease.release()
            raise RunFailedError("cut")
        self.left -= 1
        super().write(run, pieces, data)


def test_after_a_cut_only_the_rest_is_sent(tmp_path: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab_files, "PIECE", 4000)
    here, _ = both(tmp_path)
    with pytest.raises(RunFailedError):
        copy_runs.copy_runs(here, CutLine(tmp_path / "there", 3), [], "all")
    assert run_store.folders(tmp_path / "there") == []
    (copied,) = copy_runs.copy_runs(*both(tmp_path), [], "all")
    assert copied.kept > 4000
    total = sum(file.size for file in here.listing(run.name, "all"))
    assert copied.size == total - copied.kept
    assert (there(tmp_path, run).path / "rankings" / "a.run.gz").read_bytes() == BIG


class NoisyLine(LabFiles):
    """A lab in which a byte of what is read is another one, for so many readings."""

    def __init__(self, lab: Path, times: int) -> None:
        super().__init__(lab)
        self.times = times

    def read(self, run: str, pieces: Sequence[FilePiece]) -> bytes:
        data = super().read(run, pieces)
        self.times -= 1
        return data if self.times < 0 else data[:-1] + bytes([data[-1] ^ 1])


def test_bytes_that_arrive_otherwise_are_sent_again_and_refused_the_second_time(tmp_path: Path, run: RunFolder) -> None:
    _, target = both(tmp_path)
    with refused(DamagedError, "format"):
        copy_runs.copy_runs(NoisyLine(tmp_path / "here", 2), target, [], "all")
    assert run_store.folders(tmp_path / "there") == []
    assert copy_runs.copy_runs(NoisyLine(tmp_path / "here", 1), target, [], "all")[0].outcome == "copied"


def test_a_run_of_the_same_id_with_other_content_is_refused_and_the_others_are_copied(
    tmp_path: Path, run: RunFolder
) -> None:
    other = run_store.create(tmp_path / "here", plan_for(label="second"), TOML, datetime.now(UTC))
    copy_runs.copy_runs(*both(tmp_path), [run.name], "all")
    user_labels.save_note(there(tmp_path, run), "a note that only this lab has")
    assert copy_runs.copy_runs(*both(tmp_path), [run.name], "all")[0].outcome == "there already"
    there(tmp_path, run).recipe.write_bytes(b"another")
    first, second = sorted(copy_runs.copy_runs(*both(tmp_path), [], "all"), key=lambda copied: copied.run == other.name)
    assert (first.outcome, second.outcome) == ("refused", "copied")
    assert first.error is not None
    assert first.error.code == "run-differs"
    for named in (tmp_path / "here", tmp_path / "there", "recipe.toml"):
        assert str(named) in str(first.error)
    assert there(tmp_path, run).recipe.read_bytes() == b"another"


def test_a_damaged_run_and_one_at_work_are_not_copied(tmp_path: Path, run: RunFolder) -> None:
    here, _ = both(tmp_path)
    with Lease.take(run.lease), refused(UsageError, "run-state", "running"):
        here.listing(run.name, "all")
    (run.path / "rankings" / "a.run.gz").write_bytes(BIG[:-1])
    with refused(DamagedError, "format"):
        here.listing(run.name, "all")


def test_two_copies_at_once_do_not_mix(tmp_path: Path, run: RunFolder) -> None:
    here, target = both(tmp_path)
    files = here.listing(run.name, "all")
    target.begin(run.name, files)
    with refused(HeldError, "run-held"):
        LabFiles(tmp_path / "there").begin(run.name, files)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", ".hidden", "", "a/.part"])
def test_no_path_leads_out_of_a_run(tmp_path: Path, run: RunFolder, path: str) -> None:
    here, target = both(tmp_path)
    with refused(UsageError, "path-outside"):
        here.read(run.name, [FilePiece(path, 0, 1)])
    with refused(UsageError, "path-outside"):
        here.read(f"../runs/{run.name}", [FilePiece("plan.json", 0, 1)])
    target.begin(run.name, [FileToReceive("plan.json", 1, "")])
    with refused(UsageError, "path-outside"):
        target.write(run.name, [FilePiece(path, 0, 1)], b"x")


def test_a_lab_is_not_copied_into_itself_and_has_to_exist(tmp_path: Path, run: RunFolder) -> None:
    here, _ = both(tmp_path)
    with refused(UsageError, "same-lab"):
        copy_runs.copy_runs(here, LabFiles(tmp_path / "here"), [], "all")
    with refused(UsageError, "lab-not-found"):
        copy_runs.copy_runs(LabFiles(tmp_path / "nowhere"), here, [], "all")


def test_of_a_journal_only_what_was_added_is_sent_and_of_one_that_was_rewritten_all(
    tmp_path: Path, run: RunFolder
) -> None:
    here, _ = both(tmp_path)
    run.events.write_bytes(b"one\ntwo\n")
    known = {"events.jsonl": SeenFile(8, 0, tail_of(run.events, 8)), "gone.json": SeenFile(1, 0)}

    def start() -> int:
        changed, gone = here.changed(run.name, known, "journals")
        assert gone == ("gone.json",)
        return next(file.start for file in changed if file.path == "events.jsonl")

    run.events.write_bytes(b"one\ntwo\nthree\n")
    assert start() == 8
    run.events.write_bytes(b"one\nTWO\nthree\n")
    assert start() == 0
    run.events.write_bytes(b"one\n")
    assert start() == 0
    small, _ = here.changed(run.name, {}, "journals")
    large, _ = here.changed(run.name, {}, "results")
    assert {file.path for file in large} - {file.path for file in small} == {"rankings/a.run.gz"}


def content(folder: RunFolder) -> dict[str, bytes]:
    return {path: (folder.path / path).read_bytes() for path in paths(folder)}


def test_checkpoints_that_a_run_there_goes_without_are_added_and_nothing_of_it_changes(
    tmp_path: Path, run: RunFolder
) -> None:
    copy_runs.copy_runs(*both(tmp_path), [], "none")
    copy = there(tmp_path, run)
    user_labels.save_note(copy, "a note that only this lab has")
    before = content(copy)
    (added,) = copy_runs.copy_runs(*both(tmp_path), [], "last")
    assert (added.outcome, added.files) == ("added", 2)
    assert copy.checkpoint_steps(0, "contrastive") == [1_000_000]
    (added,) = copy_runs.copy_runs(*both(tmp_path), [], "all")
    assert (added.outcome, added.files) == ("added", 4)
    assert copy.checkpoint_steps(0, "contrastive") == [5, 10, 1_000_000]
    after = content(copy)
    assert {path: after[path] for path in before} == before
    assert list(runs_folder(tmp_path / "there").iterdir()) == [copy.path]
    assert copy_runs.copy_runs(*both(tmp_path), [], "all")[0].outcome == "there already"


def test_adding_checkpoints_continues_after_a_cut(
    tmp_path: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, target = both(tmp_path)
    weights = run.path / "stages" / "1-contrastive" / "checkpoints" / "step-000010" / "weights"
    weights.write_bytes(BIG)
    copy_runs.copy_runs(here, target, [], "none")
    monkeypatch.setattr(lab_files, "PIECE", 4000)
    with pytest.raises(RunFailedError):
        copy_runs.copy_runs(here, CutLine(tmp_path / "there", 2), [], "all")
    assert there(tmp_path, run).checkpoint_steps(0, "contrastive") == []
    (added,) = copy_runs.copy_runs(here, LabFiles(tmp_path / "there"), [], "all")
    assert (added.outcome, added.kept) == ("added", 4000)
    assert (there(tmp_path, run).path / weights.relative_to(run.path)).read_bytes() == BIG


def test_a_checkpoint_that_lost_a_file_there_gets_it_back(tmp_path: Path, run: RunFolder) -> None:
    copy_runs.copy_runs(*both(tmp_path), [], "all")
    checkpoint = there(tmp_path, run).checkpoint(0, "contrastive", 10)
    (checkpoint / "weights").unlink()
    (added,) = copy_runs.copy_runs(*both(tmp_path), [], "all")
    assert (added.outcome, added.files) == ("added", 1)
    assert (checkpoint / "weights").read_bytes() == b"10"


def test_a_finished_run_gets_back_a_file_that_was_lost_there(tmp_path: Path, run: RunFolder) -> None:
    json_records.save(run.done, Done(time="2026-01-02T03:04:05+00:00"))
    copy_runs.copy_runs(*both(tmp_path), [], "all")
    (there(tmp_path, run).path / "rankings" / "a.run.gz").unlink()
    assert copy_runs.copy_runs(*both(tmp_path), [], "all")[0].outcome == "added"
    assert content(there(tmp_path, run))["rankings/a.run.gz"] == BIG


def test_nothing_is_added_to_a_run_that_a_worker_is_at(tmp_path: Path, run: RunFolder) -> None:
    copy_runs.copy_runs(*both(tmp_path), [], "none")
    with Lease.take(there(tmp_path, run).lease):
        (refusal,) = copy_runs.copy_runs(*both(tmp_path), [], "all")
    assert refusal.outcome == "refused"
    assert refusal.error is not None
    assert refusal.error.code == "run-held"
    assert there(tmp_path, run).checkpoint_steps(0, "contrastive") == []


def test_a_run_that_was_received_uses_the_cache_of_its_new_machine(tmp_path: Path, run: RunFolder) -> None:
    here, _ = both(tmp_path)
    target = LabFiles(tmp_path / "there", tmp_path / "new cache")
    copy_runs.copy_runs(here, target, [], "all")
    copy = there(tmp_path, run)
    assert run_store.load_plan(copy).cache == str(tmp_path / "new cache")
    assert run_store.load_plan(copy).fingerprint == run_store.load_plan(run).fingerprint
    assert copy_runs.copy_runs(here, target, [], "all")[0].outcome == "there already"
    copy_runs.copy_runs(target, LabFiles(tmp_path / "third"), [], "all")
    third = RunFolder(runs_folder(tmp_path / "third") / run.name)
    assert run_store.load_plan(third).cache == run_store.load_plan(run).cache
    copy.place.write_bytes(b"no record")
    assert run_store.load_plan(copy).cache == run_store.load_plan(run).cache
    assert [problem.path for problem in repair.find_problems(copy)] == [copy.place]


@pytest.mark.parametrize("address", ["login:/shared/lab", "me@login.example.org:lab"])
def test_an_address_as_scp_writes_it_makes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with refused(UsageError, "remote-lab", address):
        copy_runs.storage_of(address, "LAB")
    (tmp_path / address).mkdir(parents=True)
    assert copy_runs.storage_of(address, "LAB").title == str(tmp_path / address)
