"""`--lab ssh://...` runs a command where the lab is; a script stands for ssh and runs it here."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cerank.cli import remote_lab
from cerank.errors import ExitCode, MissingError, RunFailedError, UsageError
from cerank.runs import lab_address, run_store
from tests import ssh_standin
from tests.refusals import refused
from tests.scheduler.conftest import TOML, plan_for


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return ssh_standin.put_on_path(tmp_path, monkeypatch)


def test_the_command_runs_where_the_lab_is_and_its_words_arrive_whole(
    tmp_path: Path, ssh: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lab = tmp_path / "a lab"
    run = run_store.create(lab, plan_for(label="first try"), TOML, datetime.now(UTC))
    address = f"ssh://me@node:2222{lab}"
    words = ["ps", f"--lab={address}", "--json"]
    assert remote_lab.address_in(words) == address
    assert remote_lab.run_there(words, address) == ExitCode.OK
    assert run.name in capfd.readouterr().out
    assert ssh.read_text().startswith("-p 2222 -- me@node ")
    absent = ["show", "there is none", "--lab", address]
    assert remote_lab.run_there(absent, remote_lab.address_in(absent)) == ExitCode.USAGE
    assert "there is none" in capfd.readouterr().err


@pytest.mark.parametrize("address", ["ssh://node", "ssh:///lab", "ssh://-oProxyCommand=x/lab", "ssh://a b/lab"])
def test_what_is_no_address_never_reaches_ssh(ssh: Path, address: str) -> None:
    with refused(UsageError, "remote-lab"):
        remote_lab.run_there(["ps", "--lab", address], address)
    assert not ssh.exists()


def test_on_a_terminal_the_other_side_is_asked_for_a_table_where_it_has_one(
    ssh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh.parent.joinpath("bin", "ssh").write_text('#!/bin/sh\necho "$@" >"$(dirname "$0")/../words.txt"\n')
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((100, 40)))
    lab = "ssh://node/lab"
    asked = {}
    for words in (["ps"], ["ps", "--format=json"], ["queue"], ["queue", "start"], ["show", "x", "--json"]):
        remote_lab.run_there([*words, "--lab", lab], lab)
        asked[" ".join(words)] = "--format table" in ssh.read_text()
    assert [words for words, has_table in asked.items() if has_table] == ["ps", "queue"]


def test_a_command_that_needs_more_than_the_lab_is_refused(ssh: Path) -> None:
    with refused(UsageError, "remote-lab", "bench", "ps"):
        remote_lab.run_there(["bench", "--lab", "ssh://node/lab"], "ssh://node/lab")
    assert not ssh.exists()


@pytest.mark.parametrize(("code", "error"), [(255, RunFailedError), (127, MissingError)])
def test_a_machine_that_is_away_or_has_no_cerank_is_named(
    ssh: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[RunFailedError | MissingError]
) -> None:
    monkeypatch.setenv(lab_address.COMMAND, f"exit {code};")
    with refused(error, "remote-lab", "node"):
        remote_lab.run_there(["ps", "--lab", "ssh://node/lab"], "ssh://node/lab")


def test_a_folder_is_no_address() -> None:
    assert remote_lab.address_in(["ps", "--lab", "lab", "ssh://node/lab"]) == ""
