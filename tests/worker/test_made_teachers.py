"""Runs whose stage learns from a teacher that the recipe declares: made before it trains, asked once, kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cerank.app.lab import Lab
from cerank.core.metrics import Event
from cerank.errors import RecipeError
from cerank.files import journal, json_records
from cerank.recipes.schema import recipe_from
from cerank.trec.text_io import read_run
from cerank.worker.run_inputs import MadeRanking
from tests.refusals import refused
from tests.teachers.scripted_server import Reply, ScriptedServer, completion, shown_passages

from .small import STAGE, bits_of, small_plan, small_run
from .test_whole_runs import attempt, rows_of


def _reversed(body: dict[str, object], _times: int) -> Reply:
    """Ranks the last passage first, and refuses the queries of which it says so."""
    order = range(len(shown_passages(body)), 0, -1)
    return completion(" > ".join(f"[{number}]" for number in order) or "[1] > [2]")


def _plan(folder: Path, server: ScriptedServer, **more: object):
    short = {**STAGE, "steps": 4, "validate_every": 4}
    teacher = {"kind": "listwise", "model": "m", "server": server.url, "window": 4, "stride": 2, "depth": 8}
    return small_plan(
        folder,
        chain=["distill"],
        stages={"distill": {**short, "loss": "ranknet", "source": "teacher", "teacher": "zephyr"}},
        teachers={"zephyr": teacher | more},
    )


def _events(run, kind: str) -> list[str]:
    return [event.text for event in journal.read(run.events, Event) if event.kind == kind]


def test_a_stage_trains_from_a_teacher_that_was_made_for_the_queries_it_samples(tmp_path: Path) -> None:
    with ScriptedServer(_reversed) as server:
        plan, settings = _plan(tmp_path, server)
        assert server.bodies == []  # a plan asks nothing
        (entry,) = [entry for entry in plan.inputs if entry.role == "teacher"]
        assert (entry.name, entry.location) == ("zephyr for distill", server.url)
        run = small_run(tmp_path, plan, settings)
        assert attempt(run) == 0, run.log.read_text()
        asked = len(server.bodies)
        again = small_run(tmp_path, plan, settings, second=1)
        assert attempt(again) == 0, again.log.read_text()
        assert len(server.bodies) == asked
    taught = read_run(run.teacher("distill")).ranking
    assert 0 < len(taught) <= 8  # four steps of two queries
    before = read_run(run.candidates(plan.recipe.data.train, "bm25")).ranking
    for query in taught:
        assert sorted(taught[query]) == sorted(before[query][:8])
    beside = json_records.load(run.teacher("distill").with_name("distill.made.json"), MadeRanking)
    assert set(beside.asked) == set(taught)
    assert beside.provenance.place == server.url
    (event,) = _events(run, "teacher made")
    assert "0 answers reused" in event
    bits, others = bits_of(run), bits_of(again)
    assert bits.keys() == others.keys()
    assert [name for name in bits if bits[name] != others[name] and not name.endswith(".made.json")] == []
    assert rows_of(run) == rows_of(again)


def test_a_query_that_the_teacher_cannot_rank_is_replaced_by_another(tmp_path: Path) -> None:
    with ScriptedServer(_reversed) as server:
        plan, settings = _plan(tmp_path, server, max_failures=1.0)
        run = small_run(tmp_path, plan, settings)
        assert attempt(run) == 0, run.log.read_text()
        first = read_run(run.teacher("distill")).ranking
        lost = next(iter(first))
        words = (tmp_path / "data" / "queries.tsv").read_text().splitlines()
        text = next(line.split("\t")[1] for line in words if line.startswith(f"{lost}\t"))

    def refusing(body: dict[str, object], times: int) -> Reply:
        asks = f"search query: {text}." in json.dumps(body)
        return completion("I cannot rank these.") if asks else _reversed(body, times)

    with ScriptedServer(refusing) as server:
        plan, settings = _plan(tmp_path / "refused", server, max_failures=1.0)
        run = small_run(tmp_path / "refused", plan, settings)
        assert attempt(run) == 0, run.log.read_text()
    taught = read_run(run.teacher("distill")).ranking
    beside = json_records.load(run.teacher("distill").with_name("distill.made.json"), MadeRanking)
    assert lost not in taught
    assert lost in beside.asked
    assert beside.provenance.failed == {"unreadable": 1}
    assert len(taught) >= len(first)


def test_a_cap_pauses_the_run_and_it_continues_with_what_was_answered(tmp_path: Path) -> None:
    with ScriptedServer(_reversed) as server:
        plan, settings = _plan(tmp_path, server, max_calls=10)
        run = small_run(tmp_path, plan, settings)
        assert attempt(run) == 75, run.log.read_text()
        assert len(server.bodies) == 10
        assert Lab(settings).status(run).state == "paused"
        assert "--max-calls 10" in _events(run, "paused")[0]
        for _ in range(5):
            if attempt(run) == 0:
                break
        assert Lab(settings).status(run).state == "finished"
    assert set(server.answered.values()) == {1}


def test_a_loss_that_needs_scores_refuses_a_teacher_that_gives_an_order_alone() -> None:
    from cerank.recipes.loss_specs import loss_mistakes

    stage = {**STAGE, "loss": "kl", "source": "teacher", "teacher": "zephyr"}

    def recipe(**teacher: object):
        values = {
            "name": "x",
            "chain": ["d"],
            "stages": {"d": stage},
            "teachers": {"zephyr": {"model": "m", **teacher}},
        }
        return recipe_from(values, "test")

    (mistake,) = loss_mistakes(recipe(kind="setwise"))
    assert '"setwise"' in mistake
    assert loss_mistakes(recipe(kind="graded")) == []
    assert loss_mistakes(recipe(kind="pairwise", method="all")) == []
    assert len(loss_mistakes(recipe(kind="pairwise", method="sorted"))) == 1


@pytest.mark.parametrize(
    ("name", "teacher", "what"),
    [
        ("check", {"kind": "listwise", "model": "m"}, "teachers.check"),
        ("z", {"kind": "listwise"}, "teachers.z.model"),
        ("z", {"kind": "listwise", "model": "m", "window": 10, "stride": 11}, "teachers.z.stride 11 10"),
        ("z", {"kind": "listwise", "model": "m", "window": 10, "stride": 10}, "teachers.z.stride"),
        ("z", {"kind": "first", "model": "m", "window": 30}, "teachers.z.window 20"),
        ("z", {"kind": "setwise", "model": "m", "method": "all"}, "teachers.z.method heap bubble"),
        ("z", {"kind": "listwise", "model": "m", "server": "localhost:8000"}, "teachers.z.server"),
        ("z", {"kind": "listwise", "model": "m", "api_key": "no name"}, "teachers.z.api_key"),
        ("z", {"kind": "ensemble", "members": ["a"]}, "teachers.z.members"),
        ("z", {"kind": "ensemble", "members": ["a", "b"]}, "teachers.z.members a"),
    ],
)
def test_what_a_teacher_cannot_mean_is_refused_when_the_recipe_loads(
    name: str, teacher: dict[str, object], what: str
) -> None:
    values = {"name": "x", "chain": ["d"], "stages": {"d": STAGE}, "teachers": {name: teacher}}
    with refused(RecipeError, "recipe", *what.split()):
        recipe_from(values, "test")
