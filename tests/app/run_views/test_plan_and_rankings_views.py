from __future__ import annotations

from pathlib import Path

import pytest

from cerank.app import plan_view
from cerank.app.run_views.rankings_view import RankingChoice, Rankings, choices
from cerank.errors import MissingError
from cerank.machine import system_usage
from cerank.runs import run_store
from tests.tui.labs import LabFolder


@pytest.fixture
def lab(tmp_path: Path) -> LabFolder:
    (tmp_path / "runs").mkdir()
    return LabFolder(tmp_path)


def test_plans_differ_key_by_key(lab: LabFolder) -> None:
    one, other = (run_store.load_plan(lab.run("x", seed=seed)) for seed in (1, 2))
    assert plan_view.differences(one, one) == ()
    assert [tuple(row) for row in plan_view.differences(one, other)] == [("seed", "1", "2")]
    assert f"fingerprint {one.fingerprint}" in plan_view.text(one)


def test_re_rankings_are_offered_once_they_stand_the_last_stage_first(lab: LabFolder) -> None:
    made = lab.started(lab.run("x"), 5)
    plan = run_store.load_plan(made)
    assert choices(made, plan) == []
    with pytest.raises(MissingError):
        Rankings(made, plan, RankingChoice("distill", "pydocs/test", "bm25"))
    lab.finished(made)
    assert [choice.system for choice in choices(made, plan)] == ["distill", "contrastive"]


def test_documents_say_where_they_were_and_their_grade(lab: LabFolder) -> None:
    made = lab.finished(lab.started(lab.run("x", test=["/nowhere"]), 5))
    plan = run_store.load_plan(made)
    found = Rankings(made, plan, choices(made, plan)[0])
    assert "nowhere" in found.missing
    questions = found.questions()
    assert [round(question.change, 3) for question in questions] == [0.141, 0.141]
    rows = found.moved("q1")
    assert [(row.doc_id, row.before, row.after, row.rose, row.grade) for row in rows] == [
        ("d3", 3, 1, 2, 2),
        ("d1", 1, 2, -1, 0),
        ("d2", 2, 3, -1, None),
    ]
    assert [row.doc_id for row in found.moved("q1", depth=1)] == ["d3", "d1"]
    assert found.moved("no such query") == ()


def test_a_machine_tells_what_it_can(lab: LabFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = system_usage.Machine(lab.path)
    machine.sample()
    found = machine.sample(lab.running(lab.started(lab.run("x"), 1)).lease)
    assert found.cpu is not None
    assert found.memory is not None
    assert found.disk_free
    assert found.work is not None
    monkeypatch.setitem(__import__("sys").modules, "psutil", None)
    bare = system_usage.Machine(lab.path).sample()
    assert bare.cpu is None
    assert bare.disk_free


def test_gpus_are_told_in_a_few_characters() -> None:
    gpu = system_usage.Gpu(0, "NVIDIA H100", 0.92, 61 * 2**30, 80 * 2**30)
    assert system_usage.briefly((gpu,)) == "GPU0 92% 61/80G"
    assert system_usage.briefly(()) == ""
