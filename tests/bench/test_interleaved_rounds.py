"""Implementations in processes of their own: asked in turns, left out with a reason where they die or stall."""

from __future__ import annotations

import os
import sys

import msgspec
import pytest

from cerank.bench import own_workloads
from cerank.bench.interleaved_rounds import (
    BenchProcess,
    BenchTask,
    RoundEntry,
    TaskResponse,
    baseline_environment,
    run_interleaved,
)
from cerank.bench.text_samples import TextSample
from tests.model_fixtures import WORDS

ANSWERS = """
import json, sys
for number, line in enumerate(sys.stdin):
    ask = json.loads(line)
    print(json.dumps({"pairs": number, "seconds": 2.0}), flush=True)
"""
DIES = "import sys; sys.stdin.readline(); print('no such model', file=sys.stderr); sys.exit(3)"
STALLS = "import sys; sys.stdin.readline(); sys.stdin.read()"
BABBLES = "import sys; sys.stdin.readline(); print('loading...', flush=True); sys.stdin.read()"


def contender(tmp_path, program, name="one"):
    return BenchProcess(name, os.environ, tmp_path, (sys.executable, "-c", program))


def test_all_are_asked_in_every_turn_and_each_turn_begins_one_further(tmp_path):
    order = []
    with contender(tmp_path, ANSWERS) as one, contender(tmp_path, ANSWERS) as other:
        turns = {"a": RoundEntry(one, "x"), "b": RoundEntry(other, "x")}
        found = run_interleaved(turns, 3, 30, lambda what: order.append(what[-1]))
    assert "".join(order) == "abbaab"
    assert [answer.pairs for answer in found["a"]] == [0, 1, 2]
    assert found["b"][-1].rate == 1.0


@pytest.mark.parametrize(
    ("program", "within", "reason"),
    [
        (DIES, 30, "ended with 3: no such model"),
        (STALLS, 0.2, "took more than 0 s"),
        (BABBLES, 30, "sent an invalid answer: loading..."),
    ],
)
def test_one_that_fails_is_left_out_with_its_reason_while_the_others_go_on(tmp_path, program, within, reason):
    with contender(tmp_path, ANSWERS) as well, contender(tmp_path, program) as ill:
        assert well.run("x", 30) is not None
        assert ill.run("x", within) is None
        found = run_interleaved({"ill": RoundEntry(ill, "x"), "well": RoundEntry(well, "x")}, 2, 30)
    assert ill.failure == reason
    assert found["ill"] == []
    assert len(found["well"]) == 2


def test_one_that_is_gone_before_it_is_asked_is_lost(tmp_path):
    with contender(tmp_path, "print('', end='')") as one:
        one.process.wait(30)
        assert one.run("x", 30) is None
    assert one.failure == "ended with 0"


def test_others_see_the_persons_environment_and_no_more_than_a_count_of_threads_of_ours():
    found = baseline_environment({"HOME": "/home/her", "OMP_NUM_THREADS": "9"}, 2)
    assert found == {"HOME": "/home/her", "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"}


def test_cerank_in_a_process_of_its_own_gives_the_scores_of_this_one(tiny_classifier, tmp_path):
    documents = {f"d{at}": " ".join(WORDS[at % 9 : at % 9 + at % 7]) for at in range(24)}
    lists = {query: tuple(documents)[start : start + 8] for start, query in ((0, "q0"), (8, "q1"), (16, "q2"))}
    sample = TextSample("made", dict.fromkeys(lists, "beta xi"), documents, lists)
    (tmp_path / "sample.json").write_bytes(msgspec.json.encode(sample))
    files = own_workloads.save_checkpoint(tiny_classifier, tmp_path / "made")
    work = BenchTask(
        name="w",
        implementation="cerank.bench.own_workloads:CerankReranker",
        task="score",
        is_own=True,
        folder=str(files.folder),
        sample=str(tmp_path / "sample.json"),
    )
    with BenchProcess("cerank", os.environ, tmp_path) as one:
        ready = one.prepare(work)
        assert ready is not None, one.failure
        found = one.run("w", 60, scores=str(tmp_path / "scores.json"))
    assert isinstance(found, TaskResponse)
    assert found.pairs == 24
    assert found.memory >= ready.memory > 2**20
    scores = msgspec.json.decode((tmp_path / "scores.json").read_bytes())
    assert scores == pytest.approx(own_workloads.CerankReranker(files, "cpu", "fp32").score(sample), abs=1e-6)
