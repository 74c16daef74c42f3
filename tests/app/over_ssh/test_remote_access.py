"""A lab on another machine as the dashboard uses it; a script stands for ssh."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

import cerank
from cerank.app import Lab, fold_runs
from cerank.app.over_ssh import copy_runs, lab_messages, lab_server, ssh_connection
from cerank.app.over_ssh.lab_access import LookedAt
from cerank.app.over_ssh.lab_messages import BANNER, Greeting, LabAnswer, LabCall, ListAnswer
from cerank.app.over_ssh.lab_server import LabServer
from cerank.app.over_ssh.remote_access import RemoteAccess
from cerank.app.over_ssh.ssh_connection import LineDroppedError, SshConnection
from cerank.app.tracking import waiting_trackers
from cerank.core.metrics import Event
from cerank.datasets import folds
from cerank.errors import MissingError, UsageError
from cerank.files import journal
from cerank.files.journal import Journal
from cerank.machine.system_usage import UsageSample
from cerank.recipes.plan import Plan
from cerank.runs import lab_address, run_store, test_set_looks, user_labels
from cerank.runs.layout import RunFolder
from cerank.runs.test_set_looks import Look
from cerank.settings import Settings
from tests import ssh_standin
from tests.refusals import refused
from tests.scheduler.conftest import TOML, plan_for


class ScriptedConnection(SshConnection):
    """A line whose other side answers what the test says."""

    def __init__(self, answers: dict[str, tuple[Any, bytes]]) -> None:
        super().__init__(lab_address.parsed("ssh://node/lab"))
        self.answers = answers

    def call(
        self, name: str, args: dict[str, Any] | None = None, *, data: bytes = b"", kind: Any = None,
        patience: float = 1.0,
    ) -> tuple[Any, bytes]:  # fmt: skip
        return self.answers[name]


def settings_in(folder: Path) -> Settings:
    return Settings(lab=folder / "own", cache=folder / "cache", device="cpu", threads=1, format="")


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ssh_connection, "PAUSES", (0.0,))
    return ssh_standin.put_on_path(tmp_path, monkeypatch)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return run_store.create(tmp_path / "a lab", plan_for(label="first try"), TOML, datetime.now(UTC))


@pytest.fixture
def access(tmp_path: Path, ssh: Path, run: RunFolder) -> Iterator[RemoteAccess]:
    (tmp_path / "noise").write_text("Welcome to the cluster.\n\n")
    connection = SshConnection(lab_address.parsed(f"ssh://me@node:2222{run.lab}"))
    connection.open()
    made = RemoteAccess(connection, settings_in(tmp_path))
    yield made
    made.close()


def test_the_load_is_that_of_the_labs_machine_and_empty_while_it_is_not_reached(
    tmp_path: Path, access: RemoteAccess, run: RunFolder
) -> None:
    access.poll()
    sample = access.sample(run, is_live=False)
    assert sample.cores == os.cpu_count()
    assert sample.disk_free
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    (tmp_path / "away").write_text("no route to host")
    polled_until_dropped(access)
    assert access.sample(run, is_live=True) == UsageSample()


def polled_until_dropped(access: RemoteAccess) -> LookedAt:
    deadline = time.monotonic() + 60
    while not (looked := access.poll()).dropped:
        assert time.monotonic() < deadline
    return looked


def test_runs_are_listed_read_and_changed_where_the_lab_is(
    tmp_path: Path, access: RemoteAccess, run: RunFolder, ssh: Path
) -> None:
    (entry,) = access.poll(followed=[run.name]).entries
    assert (entry.name, entry.label, entry.state, entry.short_name) == (
        run.name,
        "first try",
        "waiting",
        run_store.short_name(run),
    )
    assert entry.folder.path.is_relative_to(tmp_path / "cache")
    assert entry.folder.plan.read_bytes() == run.plan.read_bytes()
    with Journal(run.events, Event) as out:
        out.append(Event(time="2026-01-01T00:00:00+00:00", kind="started", text="one"))
    access.poll(followed=[run.name])
    assert [event.text for event in journal.read(entry.folder.events, Event)] == ["one"]
    with Journal(run.events, Event) as out:
        out.append(Event(time="2026-01-01T00:00:01+00:00", kind="paused", text="two"))
    access.bring([run.name], "journals")
    assert entry.folder.events.read_bytes() == run.events.read_bytes()
    access.save_label(run, "second try", "a b")
    access.save_note(run, "a note")
    (labeled,) = access.poll([run.name]).entries
    assert (labeled.label, labeled.notes.tags, labeled.note) == ("second try", ("a", "b"), "a note")
    assert user_labels.load(run).label == "second try"
    look = Look(time="2026-01-01T00:00:00+00:00", by="dashboard", comparisons={"a": ("b",)})
    test_set_looks.record(access.mirror, look)
    with refused(UsageError, "run-state"):
        access.stop(run)
    access.trash(run)
    assert not run.path.exists()
    assert access.poll().entries == ()
    assert not entry.folder.path.exists()
    assert [look.by for look in test_set_looks.load(run.lab)] == ["dashboard"]
    access.restore(run.name)
    assert [entry.name for entry in access.poll().entries] == [run.name]
    (words,) = ssh.read_text().splitlines()
    assert words.startswith("-T -p 2222 -- me@node ")


def fold_plan(number: int, seed: int) -> Plan:
    plan = plan_for()
    names = folds.fold_names("coll", number, 3, "3")
    data = msgspec.structs.replace(plan.recipe.data, train=names.train, validation=names.validation, test=(names.test,))
    return msgspec.structs.replace(plan, recipe=msgspec.structs.replace(plan.recipe, seed=seed, data=data))


@pytest.mark.parametrize("form", ["{}@folds", "{}@folds:a", "tuned={}@folds", "both={},{}@folds:first-stage"])
def test_all_folds_are_brought_where_a_comparison_names_them_by_one(
    tmp_path: Path, access: RemoteAccess, run: RunFolder, form: str
) -> None:
    made = {}
    for second, (seed, number) in enumerate((seed, number) for seed in (1, 2) for number in (1, 2, 3)):
        now = datetime(2026, 1, 2, 3, 4, second, tzinfo=UTC)
        made[seed, number] = run_store.create(run.lab, fold_plan(number, seed), TOML, now)
        made[seed, number].done.write_bytes(b"{}")
    access.poll()
    name = run_store.short_name(made[1, 2])
    access.bring_targets([form.format(*[name] * form.count("{}")), "other.run"])
    mirrored = RunFolder(access.mirror / "runs" / made[1, 2].name)
    of_set = [made[1, number].name for number in (1, 2, 3)]
    assert [folder.name for folder, _ in fold_runs.in_order(access.mirror, mirrored)] == of_set
    here = sorted(path.name for path in (access.mirror / "runs").iterdir() if path.is_dir())
    assert here == sorted(of_set)  # and neither the other seed nor a run that is not named


def test_a_line_that_drops_keeps_what_was_seen_and_comes_back_by_itself(
    tmp_path: Path, access: RemoteAccess, run: RunFolder, ssh: Path
) -> None:
    entries = access.poll().entries
    (tmp_path / "away").write_text("No route to host\n")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    looked = polled_until_dropped(access)
    assert looked.entries == entries
    assert "node" in looked.dropped
    with refused(LineDroppedError, "line-dropped", "node", "No route to host"):
        access.stop(run)
    (tmp_path / "away").unlink()
    user_labels.save(run, user_labels.UserLabels(label="changed meanwhile"))
    looked = access.poll()
    assert (looked.dropped, looked.entries[0].label) == ("", "changed meanwhile")
    assert "BatchMode=yes" in ssh.read_text().splitlines()[-1]  # no password is asked for over a screen


@pytest.mark.slow
def test_runs_are_copied_over_ssh_in_both_directions(tmp_path: Path, ssh: Path, run: RunFolder) -> None:
    afar = copy_runs.storage_of(f"ssh://node{run.lab}", "LAB")
    here = copy_runs.storage_of(str(tmp_path / "pulled"), "LAB")
    assert [copied.outcome for copied in copy_runs.copy_runs(afar, here, ["first try"], "last")] == ["copied"]
    assert (tmp_path / "pulled" / "runs" / run.name / "plan.json").read_bytes() == run.plan.read_bytes()
    assert [copied.outcome for copied in copy_runs.copy_runs(here, afar, [], "last")] == ["there already"]
    run_store.remove(run)
    assert [copied.outcome for copied in copy_runs.copy_runs(here, afar, [], "last")] == ["copied"]
    assert run_store.row(run, datetime.now(UTC)).label == "first try"
    with refused(UsageError, "run-not-found", "nothing"):
        copy_runs.copy_runs(afar, here, ["nothing"], "last")


@pytest.mark.parametrize(
    ("answer", "kind", "code", "named"),
    [
        ("exit 127;", MissingError, "remote-lab", "node"),
        ("echo no such lab >&2; exit 2;", UsageError, "remote-lab", "no such lab"),
        ("exit 255;", LineDroppedError, "line-dropped", "node"),
        ("cat {greeting}; cat;", UsageError, "remote-version", "9.9"),
    ],
)
def test_a_machine_that_cannot_answer_is_refused_with_the_reason(
    tmp_path: Path,
    ssh: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    kind: type[UsageError | MissingError | LineDroppedError],
    code: str,
    named: str,
) -> None:
    greeting = tmp_path / "greeting"
    greeting.write_bytes(BANNER + msgspec.json.encode(Greeting("9.9", "node", "/lab")) + b"\n")
    monkeypatch.setenv(lab_address.COMMAND, answer.format(greeting=greeting))
    with refused(kind, code, named):
        SshConnection(lab_address.parsed("ssh://node/lab")).open()
    assert cerank.__version__ != "9.9"


@pytest.mark.parametrize("gone", ["{folder}/precious", "../../../precious", "mine.txt"])
def test_the_other_machine_can_have_no_file_deleted_but_the_copies(tmp_path: Path, gone: str) -> None:
    connection = ScriptedConnection({})
    access = RemoteAccess(connection, settings_in(tmp_path))
    copy = access.mirror / "runs" / "one"
    copy.mkdir()
    connection.answers["changed"] = (((), ()), b"")
    access.bring([copy.name], "journals")  # what lies there is known from now on
    connection.answers["changed"] = (((), (gone.format(folder=tmp_path),)), b"")
    for path in (tmp_path / "precious", copy / "mine.txt"):
        path.write_text("kept")
    if gone == "mine.txt":  # of which no copy was made
        access.bring([copy.name], "journals")
    else:
        with refused(UsageError, "path-outside"):
            access.bring([copy.name], "journals")
    assert (tmp_path / "precious").exists()
    assert (copy / "mine.txt").exists()
    access.close()


def test_two_dashboards_on_one_lab_keep_their_copies_apart(tmp_path: Path) -> None:
    first, second = (RemoteAccess(ScriptedConnection({}), settings_in(tmp_path)) for _ in range(2))
    assert first.mirror != second.mirror
    first.close()
    third = RemoteAccess(ScriptedConnection({}), settings_in(tmp_path))
    assert third.mirror == first.mirror
    second.close()
    third.close()


def greet_and(tmp_path: Path, then: str, monkeypatch: pytest.MonkeyPatch) -> SshConnection:
    """A line to a program that greets as this version does."""
    greeting = tmp_path / "greeting"
    greeting.write_bytes(BANNER + msgspec.json.encode(Greeting(cerank.__version__, "node", "/lab")) + b"\n")
    monkeypatch.setenv(lab_address.COMMAND, f"cat {greeting}; {then};")
    connection = SshConnection(lab_address.parsed("ssh://node/lab"))
    connection.open()
    return connection


def test_a_line_that_takes_no_more_bytes_counts_as_dropped_for_all_who_call(
    tmp_path: Path, ssh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = greet_and(tmp_path, "exec sleep 300", monkeypatch)
    ended: list[str] = []

    def call() -> None:
        with refused(LineDroppedError, "line-dropped", "node"):
            connection.call("write", data=bytes(4 << 20), patience=0.2)
        ended.append("dropped")

    (tmp_path / "away").write_text("No route to host\n")
    threads = [threading.Thread(target=call, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert ended == ["dropped", "dropped"]
    connection.close()


@pytest.mark.parametrize("greeting", ['{"versio', '{"version": 1}', '{"version": "\\377"}'])
def test_a_greeting_that_is_none_counts_as_a_line_that_dropped(
    ssh: Path, monkeypatch: pytest.MonkeyPatch, greeting: str
) -> None:
    monkeypatch.setenv(lab_address.COMMAND, f"printf '{BANNER.decode()}{greeting}\\n';")
    with refused(LineDroppedError, "line-dropped", "node"):
        SshConnection(lab_address.parsed("ssh://node/lab")).open()


@pytest.mark.parametrize("sent", [b"no zlib", zlib.compress(b"no json"), zlib.compress(b'[{"name": 1}]')])
def test_a_list_that_is_none_counts_as_a_line_that_dropped(tmp_path: Path, sent: bytes) -> None:
    access = RemoteAccess(ScriptedConnection({"poll": (ListAnswer(names=()), sent)}), settings_in(tmp_path))
    looked = access.poll()
    assert "node" in looked.dropped
    assert looked.entries == ()
    access.close()


def test_an_answer_of_another_kind_counts_as_a_line_that_dropped(
    tmp_path: Path, ssh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = tmp_path / "answer"
    answer.write_bytes(msgspec.json.encode(LabAnswer(1, msgspec.Raw(b'"three"'))) + b"\n")
    connection = greet_and(tmp_path, f"read line; cat {answer}; cat", monkeypatch)
    with refused(LineDroppedError, "line-dropped", "node"):
        connection.call("sizes", kind=int)
    connection.close()


def test_a_run_that_is_resumed_over_ssh_is_sent_to_its_trackers_as_one_here(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[Path, int]] = []
    monkeypatch.setattr(waiting_trackers, "start_when_they_begin", told.append)
    monkeypatch.setattr(Lab, "resume_queued", lambda *_: None)
    LabServer(Lab(msgspec.structs.replace(settings_in(tmp_path), lab=run.lab), devices=())).act("resume", run.name)
    assert told == [{run.path: 0}]


@pytest.mark.parametrize("output", ["open", "closed"])
def test_a_change_that_was_asked_for_is_made_though_the_line_drops(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    begun, may_end, left = threading.Event(), threading.Event(), threading.Event()
    made: list[str] = []

    def note(server: LabServer, run: str, text: str) -> lab_server.Result:
        begun.set()
        assert may_end.wait(60)
        made.append(text)
        return None, b""

    class Output(io.BytesIO):
        def write(self, data: Any) -> int:
            if output == "closed" and not data.startswith(BANNER):
                raise BrokenPipeError
            return super().write(data)

    made_when_left: list[list[str]] = []

    def leave(code: int) -> None:
        made_when_left.append(list(made))
        left.set()

    monkeypatch.setattr(LabServer, "note", note)
    monkeypatch.setattr(os, "_exit", leave)
    calls = io.BytesIO()
    lab_messages.send(calls, LabCall(1, "note", {"run": run.name, "text": "kept"}))
    lab_messages.send(calls, LabCall(2, "sizes", {"runs": []}))
    calls.seek(0)
    lab = Lab(msgspec.structs.replace(settings_in(tmp_path), lab=run.lab), devices=())
    thread = threading.Thread(target=lab_server.serve, args=(lab, calls, Output()), daemon=True)
    thread.start()
    assert begun.wait(60)
    assert not left.wait(0.2)
    may_end.set()
    thread.join(60)
    assert left.is_set()
    assert all(made == ["kept"] for made in made_when_left)
