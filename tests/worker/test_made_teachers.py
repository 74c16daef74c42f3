"""Runs whose stage learns from a teacher that the recipe declares: made before it trains, asked once, kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from cerank.app.comparison import comparisons, stage_costs
from cerank.app.comparison.named_systems import RunTarget
from cerank.app.evidence import system_costs
from cerank.app.lab import Lab
from cerank.app.teaching import planned_teaching
from cerank.core.metrics import Event
from cerank.errors import RecipeError
from cerank.files import journal, json_records
from cerank.files.hashing import sha256_lines
from cerank.machine.process_environment import pinned_environment
from cerank.recipes.recipe_checks import recipe_from
from cerank.teachers.answer_store import read_answers
from cerank.teachers.judging.labels import grades_of
from cerank.trec.text_io import read_run
from cerank.worker.run_inputs import MadeRanking
from tests.refusals import refused
from tests.teachers.scripted_server import Reply, ScriptedServer, completion, shown_passages

from . import large_files
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


@pytest.mark.slow
def test_a_teacher_that_failed_on_test_queries_keeps_their_order_and_the_run_says_so(tmp_path: Path) -> None:
    def script(body: dict[str, object], times: int) -> Reply:
        return _reversed(body, times) if len(str(body)) % 5 else completion("no")

    with ScriptedServer(script) as server:
        teacher = {"kind": "listwise", "model": "m", "server": server.url, "window": 4, "depth": 4, "max_failures": 1.0}
        plan, settings = small_plan(
            tmp_path,
            chain=["contrastive"],
            stages={"contrastive": {**STAGE, "steps": 2, "validate_every": 2}},
            teachers={"zephyr": teacher | {"stride": 2}},
            evaluate={"measures": ["nDCG@10"], "teachers": ["zephyr"]},
        )
        run = small_run(tmp_path, plan, settings)
        assert attempt(run) == 0, run.log.read_text()
    test = plan.recipe.data.test[0]
    ranked, before = (read_run(run.ranking(system, test, "bm25")).ranking for system in ("zephyr", "first-stage"))
    kept = [query for query in before if ranked[query] == before[query]]
    assert 0 < len(kept) < len(before)
    assert f"zephyr: {len(kept)} of {len(before)} queries of {test} keep the order of bm25" in _events(
        run, "teacher failed"
    )


@pytest.mark.parametrize(
    ("stages", "evaluate", "what"),
    [
        ({"labels_by": "nobody"}, {}, "stages.d.labels_by nobody"),
        ({"labels_by": "z"}, {}, "stages.d.labels_by graded"),
        ({"labels_by": "z", "source": "teacher", "loss": "ranknet", "teacher": "z"}, {}, "stages.d.labels_by"),
        ({}, {"teachers": ["nobody"]}, "evaluate.teachers nobody"),
        ({}, {"teachers": ["z", "z"]}, "evaluate.teachers z"),
        ({}, {"teachers": ["d"]}, "evaluate.teachers d"),
        ({}, {"teachers": ["w"]}, "evaluate.teachers queries"),
        ({"source": "teacher", "loss": "ranknet", "teacher": "w"}, {}, "stages.d.teacher queries"),
    ],
)
def test_a_use_of_a_teacher_that_is_not_there_or_cannot_do_it_is_refused(
    stages: dict[str, object], evaluate: dict[str, object], what: str
) -> None:
    values = {
        "name": "x",
        "chain": ["d"],
        "stages": {"d": STAGE | stages},
        "evaluate": evaluate,
        "teachers": {name: {"kind": kind, "model": "m"} for name, kind in
                     (("z", "listwise"), ("d", "listwise"), ("w", "queries"))},
    }  # fmt: skip
    with refused(RecipeError, "recipe", *what.split()):
        recipe_from(values, "test")


def _events(run, kind: str) -> list[str]:
    return [event.text for event in journal.read(run.events, Event) if event.kind == kind]


def test_a_stage_trains_from_a_teacher_that_was_made_for_the_queries_it_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "my-very-own-key-0123456789"
    monkeypatch.setenv("TEACHER_ACCESS", secret)
    with ScriptedServer(_reversed) as server:
        plan, settings = _plan(tmp_path, server, api_key="TEACHER_ACCESS")
        assert server.bodies == []  # a plan asks nothing
        (entry,) = [entry for entry in plan.inputs if entry.role == "teacher"]
        assert (entry.name, entry.location) == ("zephyr for distill", server.url)
        (planned,) = planned_teaching.of_plan(plan, settings.lab)
        assert (planned.use, planned.estimate.name, planned.estimate.place) == ("distill", "zephyr", server.url)
        assert server.bodies == []
        run = small_run(tmp_path, plan, settings)
        assert attempt(run) == 0, run.log.read_text()
        asked = len(server.bodies)
        assert planned.estimate.left == asked
        assert [part.estimate.left for part in planned_teaching.of_plan(plan, settings.lab)] == [0]
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
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {secret}"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]  # lab, cache, plan, log, events, answers
    assert {run.plan, run.log, run.events} <= set(files)
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
    bits, others = bits_of(run), bits_of(again)
    assert bits.keys() == others.keys()
    assert [name for name in bits if bits[name] != others[name] and not name.endswith(".made.json")] == []
    assert rows_of(run) == rows_of(again)


@pytest.mark.slow
def test_a_teacher_of_stored_queries_gives_the_bits_of_queries_in_memory_and_is_asked_once(tmp_path: Path) -> None:
    short = {**STAGE, "steps": 4, "validate_every": 4, "first_stage": "oracle", "query_order": "computed"}
    with ScriptedServer(_reversed) as server:
        teacher = {"kind": "listwise", "model": "m", "server": server.url, "window": 4, "stride": 2, "depth": 8}
        plan, settings = small_plan(
            tmp_path,
            chain=["distill"],
            stages={"distill": {**short, "loss": "ranknet", "source": "teacher", "teacher": "zephyr"}},
            teachers={"zephyr": teacher},
        )
        in_memory, stored = small_run(tmp_path, plan, settings), small_run(tmp_path, plan, settings, second=1)
        assert attempt(in_memory) == 0, in_memory.log.read_text()
        asked = len(server.bodies)
        assert asked > 0
        assert large_files.attempt(stored) == 0, stored.log.read_text()
        resumed = [small_run(tmp_path, plan, settings, second=second) for second in (2, 3)]
        for run in resumed:
            shutil.copytree(stored.path / "teachers", run.path / "teachers")
            beside = run.teacher_record("distill")
            record = json_records.load(beside, MadeRanking)
            assert record.asked_sha256 == sha256_lines(record.asked)
            if run == resumed[1]:  # as an earlier program wrote it
                json_records.save(beside, msgspec.structs.replace(record, asked_sha256=""))
            assert large_files.attempt(run) == 0, run.log.read_text()
            assert _events(run, "teacher made") == []
        assert len(server.bodies) == asked
    expected = {path: data for path, data in bits_of(in_memory).items() if not path.startswith("candidates")}
    for run in (stored, *resumed):
        bits = bits_of(run)
        made = {path for path in expected if path.endswith(".made.json")}  # how long the answers took is in there
        assert {path: bits[path] for path in expected.keys() - made} == {
            path: data for path, data in expected.items() if path not in made
        }


def _grade(body: dict[str, object], _times: int) -> Reply:
    """Grades the passages whose text has an even length 2, and all others 0."""
    return completion(f"##final score: {2 if len(json.dumps(body)) % 2 == 0 else 0}")


def test_a_stage_learns_from_a_models_labels_alone(tmp_path: Path) -> None:
    with ScriptedServer(_grade) as server:
        judge = {"kind": "graded", "model": "m", "server": server.url, "depth": 6}
        plan, settings = small_plan(
            tmp_path,
            chain=["contrastive"],
            stages={"contrastive": {**STAGE, "steps": 3, "validate_every": 3, "labels_by": "judge"}},
            teachers={"judge": judge},
        )
        assert "judge for contrastive" in {entry.name for entry in plan.inputs if entry.role == "teacher"}
        run = small_run(tmp_path, plan, settings)
        assert attempt(run) == 0, run.log.read_text()
    graded = read_run(run.teacher("contrastive")).ranking
    assert 0 < len(graded) <= 6  # three steps of two queries
    grades = grades_of(graded)
    assert {grade for row in grades.values() for grade in row.values()} == {0, 2}
    (event,) = _events(run, "teacher made")
    assert event.startswith(f"judge: {len(graded)} queries ranked")
    (counted,) = _events(run, "groups counted")
    usable = sum(0 < sum(row.values()) < 2 * len(row) for row in grades.values())
    assert f"{usable} of {len(graded)}" in counted or usable == len(graded)


def test_a_teacher_that_ranks_the_tests_is_a_row_of_the_table_that_bounds_the_stages(tmp_path: Path) -> None:
    with ScriptedServer(_reversed) as server:
        teacher = {"kind": "listwise", "model": "m", "server": server.url, "window": 4, "stride": 2, "depth": 4}
        plan, settings = small_plan(
            tmp_path,
            chain=["contrastive"],
            stages={"contrastive": {**STAGE, "steps": 2, "validate_every": 2}},
            teachers={"zephyr": teacher | {"prices": str(_prices(tmp_path))}},
            evaluate={"measures": ["nDCG@10"], "teachers": ["zephyr"]},
        )
        (entry,) = [entry for entry in plan.inputs if entry.role == "tested_teacher"]
        test = plan.recipe.data.test[0]
        assert (entry.name, entry.location) == (f"zephyr on {test}", server.url)
        run = small_run(tmp_path, plan, settings)
        assert attempt(run) == 0, run.log.read_text()
        asked = len(server.bodies)
        again = small_run(tmp_path, plan, settings, second=1)
        assert attempt(again) == 0
        assert len(server.bodies) == asked  # the lab has all answers
    ranked, before = (
        read_run(run.ranking("zephyr", test, "bm25")).ranking,
        read_run(run.ranking("first-stage", test, "bm25")).ranking,
    )
    assert set(ranked) == set(before)
    for query, docs in before.items():
        assert ranked[query] == (*reversed(docs[:4]), *docs[4:]), query
    comparison = comparisons.of_run(run)
    assert [system.label for system in comparison.systems] == ["first-stage", "contrastive", "zephyr"]
    couples = {(row.left, row.right): row.is_primary for row in comparison.rows}
    assert couples[("first-stage", "contrastive")]
    assert {("first-stage", "zephyr"), ("zephyr", "contrastive")} <= couples.keys()
    assert not couples[("first-stage", "zephyr")]  # described, outside the family of the stages
    *_, cost = stage_costs.of_run(run, plan)
    calls = len(before) * len(plan.recipe.data.first_stages)
    assert (cost.stage, cost.teacher.calls, cost.teacher.input_tokens) == ("zephyr", calls, 100 * calls)
    assert cost.teacher.money == pytest.approx(calls * 0.11)
    targets = {name: [RunTarget(name, run, plan, name)] for name in ("first-stage", "contrastive", "zephyr")}
    costs = system_costs.of_runs(targets, hour_price=0.0)
    assert (costs["contrastive"].calls, costs["zephyr"].calls) == (0, calls)
    table = system_costs.gains_per_cost(comparison, costs)
    keys = [column.key for column in table.columns]
    named = [dict(zip(keys, row, strict=True)) for row in table.rows]
    ceiling = next(row for row in named if (row["left"], row["right"]) == ("first-stage", "zephyr"))
    assert ceiling["per_call"] == pytest.approx(ceiling["difference"] / calls * 1000)
    assert ceiling["per_money"] == pytest.approx(ceiling["difference"] / (calls * 0.11))
    assert ceiling["per_hour"] is None  # it is not trained here


def _prices(folder: Path) -> Path:
    path = folder / "prices.toml"
    path.write_text("[models.m]\ninput = 1000.0\noutput = 1000.0\ndate = 2026-11-01\n")
    return path


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


@pytest.mark.slow
def test_a_worker_killed_while_it_asks_for_a_teacher_repeats_no_call_that_was_answered(tmp_path: Path) -> None:
    """Killed after every few calls; then it trains to the end, and no answer that the lab holds was asked for twice."""

    def script(body: dict[str, object], times: int) -> Reply:
        return _reversed(body, times)._replace(delay=0.05)

    with ScriptedServer(script) as server:
        plan, settings = _plan(tmp_path, server, concurrency=1)
        run = small_run(tmp_path, plan, settings)
        kills = 0
        for _ in range(4):
            seen = len(server.bodies)
            worker = subprocess.Popen(
                [sys.executable, "-P", "-m", "cerank.worker", str(run.path)],
                cwd=run.path, env=os.environ | pinned_environment(1), stderr=subprocess.DEVNULL,
            )  # fmt: skip
            while worker.poll() is None and len(server.bodies) < seen + 5:
                time.sleep(0.005)
            if worker.poll() is not None:
                break
            worker.kill()
            worker.wait()
            kills += 1
        assert attempt(run) == 0, run.log.read_text()
        assert kills >= 3
        kept = {key for path in (settings.lab / "teachers" / "answers").glob("*.jsonl") for key in read_answers(path)}
        assert len(kept) == len({json.dumps(body, sort_keys=True) for body in server.bodies})
        assert len(server.bodies) <= len(kept) + kills  # the one call that was out at each kill


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


def test_a_curriculum_by_the_confidence_of_a_teacher_that_gives_an_order_alone_is_refused() -> None:
    curriculum = {"kind": "confident-first"}
    values = {
        "name": "x",
        "chain": ["d"],
        "stages": {
            "d": {**STAGE, "loss": "ranknet", "source": "teacher", "teacher": "zephyr", "curriculum": curriculum}
        },
    }
    with refused(RecipeError, "recipe", "stages.d.curriculum.kind", "listwise"):
        recipe_from(values | {"teachers": {"zephyr": {"kind": "listwise", "model": "m"}}}, "test")
    assert recipe_from(values | {"teachers": {"zephyr": {"kind": "graded", "model": "m"}}}, "test")


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
