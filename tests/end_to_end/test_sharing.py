"""The commands that bring a re-ranker to where it is used: export, push, serve, verify --against."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest

from tests.trained_run import TrainedRun
from tests.warm import started


def cerank(trained: TrainedRun, *words, code: int = 0):
    """A command on the lab of the run; its exit code must be `code`, and no traceback reaches anybody."""
    environ = environ_of(trained)
    done = started("cerank", words, cwd=trained.settings.lab, environ=environ)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def environ_of(trained: TrainedRun) -> dict[str, str]:
    places = {"CERANK_LAB": str(trained.settings.lab), "CERANK_CACHE": str(trained.settings.cache)}
    return {**os.environ, **places, "CERANK_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def served(trained: TrainedRun) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process on a free port, and its address."""
    command = [sys.executable, "-m", "cerank", "serve", "brisk-otter", "--port", "0"]
    process = subprocess.Popen(command, env=environ_of(trained), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = ""
    while " at http" not in line:
        line = process.stderr.readline()
        assert line, "the server ended"
    yield process, line.split(" at ")[1].split("/rerank")[0]
    process.kill()
    process.wait()
    process.stderr.close()


def test_a_served_run_answers_agrees_with_what_was_measured_and_ends_cleanly(trained, served) -> None:
    process, url = served
    body = json.dumps({"query": "alpha beta", "documents": ["kappa", "alpha beta"], "top_n": 1}).encode()
    request = urllib.request.Request(f"{url}/v1/rerank", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        assert len(json.loads(answer.read())["results"]) == 1
    done = cerank(trained, "verify", "brisk-otter", "--against", url, "--queries", "4", "--json")
    assert {row["key"]: row["value"] for row in json.loads(done.stdout)}["queries in another order"] == "0"
    cerank(trained, "verify", "brisk-otter:contrastive", "--against", url, code=1)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0


def test_export_and_a_dry_run_of_push_show_what_they_made(trained: TrainedRun, tmp_path) -> None:
    pytest.importorskip("sentence_transformers")
    done = cerank(trained, "export", "brisk-otter", "--to", tmp_path / "m", "--json")
    assert {row["file"] for row in json.loads(done.stdout)} >= {"README.md", "model.safetensors", "modules.json"}
    done = cerank(trained, "push", "brisk-otter", "org/mine", "--dry-run", "--license", "mit")
    assert "license: mit" in done.stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["export", "brisk-otter", "--to", "/dev/null/m"], 1),
        (["export", "brisk-otter", "--to", "m", "--as", "int4"], 2),
        (["export", "brisk-otter", "--to", "m", "--as", "sentence-transformer"], 2),
        (["export", "brisk-oter", "--to", "m"], 2),
        (["export", "brisk-otter", "--to", "m", "--queries", "0"], 2),
        (["export", "brisk-otter", "--to", "m", "--queries", "50"], 2),
        (["push", "brisk-otter", "mine"], 2),
        (["serve", "brisk-oter", "--port", "0"], 2),
        (["serve", "brisk-otter", "--port", "70000"], 2),
        (["serve", "brisk-otter", "--host", "256.1.1.1", "--port", "0"], 2),
        (["verify", "brisk-otter", "--server-model", "m"], 2),
        (["verify", "brisk-otter", "--queries", "5"], 2),
        (["verify", "brisk-otter", "--against", "ftp://x"], 2),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_exit_code(trained: TrainedRun, words, code) -> None:
    done = cerank(trained, *words, code=code)
    assert "error" in done.stderr.lower()
    assert not (trained.settings.lab / "m").exists()
