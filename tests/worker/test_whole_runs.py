"""A whole run: what it leaves, that it repeats, and that kills at any time change nothing."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
import time
from datetime import UTC, datetime

import msgspec
import pytest

from cerank.app.comparison import comparisons, stage_costs
from cerank.app.lab import Lab
from cerank.core.metrics import Event, StepMetrics, Validation
from cerank.datasets.open_datasets import open_dataset
from cerank.files import journal
from cerank.inference.rerank import Scorer
from cerank.machine.process_environment import pinned_environment
from cerank.runs import run_store
from cerank.runs.layout import ReadingRow
from cerank.training import stage_summary
from cerank.trec.text_io import read_qrels, read_run
from tests.warm import started

from .small import STAGE, bits_of, small_plan, small_run

KILLS = int(os.environ.get("CERANK_KILLS", "30"))  # the long form: CERANK_KILLS=200


def attempt(run, seconds=None):
    """One worker on the run, killed after `seconds`; its exit code, or minus the signal."""
    environ = os.environ | pinned_environment(1)
    return started(
        "cerank.worker", [run.path], cwd=run.path, environ=environ, output=run.log, seconds=seconds
    ).returncode


def forked(run, seed=0, kills=0, longest=1.0):
    """Kills the worker `kills` times after at most `longest` seconds, then lets it finish; attempts and last exit code.

    Fewer attempts than `kills` mean that it finished before a kill came.
    """
    draw = random.Random(seed)
    done = 0
    while done < kills and attempt(run, draw.uniform(0.05, longest)) < 0:
        done += 1
    return done + 1, attempt(run)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small run that nobody disturbed, with its plan and settings."""
    folder = tmp_path_factory.mktemp("small")
    plan, settings = small_plan(folder)
    run = small_run(folder, plan, settings)
    assert forked(run) == (1, 0), run.log.read_text()
    return run, plan, settings


def rows_of(run):
    rows: list[ReadingRow] = journal.read(run.readings, ReadingRow)
    return [msgspec.structs.replace(row, seconds=0.0, attempt=0) for row in rows]


def seconds_of(run):
    times = [datetime.fromisoformat(event.time) for event in journal.read(run.events, Event)]
    return (times[-1] - times[0]).total_seconds()


def killed_and_finished(folder, plan, settings, undisturbed, *, kills, seed):
    """A run that was killed at least once, at random moments of what an undisturbed one takes, and finished."""
    whole, attempts, second = seconds_of(undisturbed), 1, 30
    while attempts == 1:
        killed = small_run(folder, plan, settings, second=second)
        attempts, code = forked(killed, seed=seed + second, kills=kills, longest=whole)
        assert code == 0, killed.log.read_text()
        whole, second = min(whole, seconds_of(killed)) if attempts == 1 else whole, second + 1
    return killed


def test_it_ends_with_checkpoints_rankings_and_measures_for_every_first_stage(finished):
    run, plan, settings = finished
    assert Lab(settings).status(run).state == "finished"
    (test,) = plan.recipe.data.test
    qrels = read_qrels(run.qrels(test))
    assert len(qrels) == 12
    for system in ("first-stage", "contrastive", "distill"):
        for first in ("bm25", "oracle"):
            ranking = read_run(run.ranking(system, test, first)).ranking
            before = read_run(run.candidates(test, first)).ranking
            assert {q: sorted(ranking[q]) for q in ranking} == {q: sorted(before[q][:8]) for q in before}
            assert len(run.measures(system, test, first).read_bytes().splitlines()) == len(qrels)


def test_its_readings_cover_every_step_of_both_stages_and_its_validations(finished):
    run, _, _ = finished
    rows = rows_of(run)
    steps = [(row.stage, row.step) for row in rows if isinstance(row, StepMetrics)]
    assert steps == [(stage, step) for stage in (0, 1) for step in range(1, 31)]
    checks = [(row.stage, row.step) for row in rows if isinstance(row, Validation)]
    assert checks == [(stage, step) for stage in (0, 1) for step in (0, 10, 20, 30)]


def test_its_first_validation_is_of_the_untrained_base_and_the_second_stages_of_what_the_first_handed_on(finished):
    run, plan, _ = finished
    validations = {(row.stage, row.step): row for row in rows_of(run) if isinstance(row, Validation)}
    assert validations[0, 0].fresh_head
    assert not validations[1, 0].fresh_head
    first, second = (stage_summary.read(run.final(index, name)) for index, name in enumerate(plan.recipe.chain))
    assert validations[1, 0].measures == validations[0, first.kept_step].measures
    assert (first.start, first.fresh_head) == (validations[0, 0].measures["nDCG@10"], True)
    assert (second.start, second.end) == (first.end, validations[1, second.kept_step].measures["nDCG@10"])


def test_its_measures_on_file_are_those_of_its_rankings_by_pytrec_eval(finished):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    run, plan, _ = finished
    (test,) = plan.recipe.data.test
    evaluator = pytrec_eval.RelevanceEvaluator(read_qrels(run.qrels(test)), {"ndcg_cut.10"})
    raw: dict[str, dict[str, float]] = {}
    for line in gzip.decompress(run.ranking("distill", test, "bm25").read_bytes()).decode().splitlines():
        query, _, doc, _, score, _ = line.split()
        raw.setdefault(query, {})[doc] = float(score)
    expected = {query: row["ndcg_cut_10"] for query, row in evaluator.evaluate(raw).items()}
    lines = run.measures("distill", test, "bm25").read_bytes().splitlines()
    found = {row["query_id"]: row["measures"]["nDCG@10"] for row in map(msgspec.json.decode, lines)}
    assert found == pytest.approx({query: expected.get(query, 0.0) for query in found}, abs=1e-12)


def test_its_table_holds_each_stage_against_the_first_stage_as_scipy_does(finished):
    from scipy import stats

    run, _, _ = finished
    table = comparisons.of_run(run)
    row = next(r for r in table.rows if (r.right, r.left) == ("distill", "first-stage") and r.measure == "nDCG@10")
    values = {s.label: s.measured[0].values["nDCG@10"] for s in table.systems}
    queries = sorted(values["distill"])
    test = stats.ttest_rel([values["distill"][q] for q in queries], [values["first-stage"][q] for q in queries])
    assert row.paired.p == pytest.approx(test.pvalue, abs=1e-9)
    interval = test.confidence_interval()
    assert (row.paired.low, row.paired.high) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_its_cost_counts_every_pair_of_training_and_re_ranking(finished):
    run, plan, _ = finished
    found = stage_costs.of_run(run, plan)
    assert [(cost.stage, cost.steps, cost.pairs) for cost in found] == [("contrastive", 30, 240), ("distill", 30, 240)]
    assert all(cost.reranked > 0 and cost.pairs_per_second and cost.seconds for cost in found)


def test_the_second_stage_starts_from_the_model_the_first_handed_on(finished):
    run, _, _ = finished
    (text,) = [e.text for e in journal.read(run.events, Event) if e.kind == "stage finished" and "distill" in e.text]
    assert "weights moved by" in text
    assert "moved by 0.00%" not in text


def test_the_same_plan_gives_the_same_bits(finished):
    run, plan, settings = finished
    again = small_run(run.path, plan, settings, second=20)
    assert forked(again) == (1, 0)
    assert rows_of(again) == rows_of(run)
    assert bits_of(again) == bits_of(run)


@pytest.mark.slow
def test_killed_at_random_times_it_ends_with_the_same_bits(finished):
    run, plan, settings = finished
    whole = seconds_of(run)  # undisturbed: kills come at any moment of it, however fast we are
    done, second = 0, 30
    while done < KILLS:
        killed = small_run(run.path, plan, settings, second=second % 60)
        attempts, code = forked(killed, seed=second, kills=min(10, KILLS - done), longest=whole)
        assert code == 0, killed.log.read_text()
        done += attempts - 1  # none where it was quicker than the first kill
        if attempts == 1:
            whole = min(whole, seconds_of(killed))  # the first run may have waited long for a device of this machine
        second += 1
        assert rows_of(killed) == rows_of(run)
        assert bits_of(killed) == bits_of(run)
        mismatches = [e.text for e in journal.read(killed.events, Event) if e.kind in {"replay mismatch", "rejected"}]
        assert not mismatches


def test_an_input_that_changed_is_refused_with_its_hash_and_nothing_is_trained(tmp_path):
    plan, settings = small_plan(tmp_path)
    run = small_run(tmp_path, plan, settings)
    with (tmp_path / "data" / "docs.tsv").open("a") as file:
        file.write("d999\tanother document\n")
    assert forked(run) == (1, 1)
    status = run_store.status(run, datetime.now(UTC))
    assert status.state == "failed"
    assert str(tmp_path / "data") in status.text
    assert not run.readings.exists() or not run.readings.read_bytes()


@pytest.mark.slow
def test_a_stop_request_leaves_a_checkpoint_and_resuming_ends_with_the_same_bits(finished):
    run, plan, settings = finished
    stopped = small_run(run.path, plan, settings, second=50)
    command = [sys.executable, "-m", "cerank.worker", str(stopped.path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as worker:
        while not stopped.readings.exists() or stopped.readings.stat().st_size < 1000:
            assert worker.poll() is None
            time.sleep(0.01)  # a loop that never waits takes the processor from the worker
        assert run_store.request_stop(stopped)
        assert worker.wait(timeout=300) == 75
    assert Lab(settings).status(stopped).state == "paused"
    assert forked(stopped) == (1, 0)
    assert rows_of(stopped) == rows_of(run)
    assert bits_of(stopped) == bits_of(run)


@pytest.mark.slow
def test_the_embedding_teacher_is_written_once_as_a_trec_run_of_the_candidates(minilm, tmp_path):
    assert minilm.name == "minilm"
    distill = {**STAGE, "steps": 2, "loss": "ranknet", "source": "teacher", "teacher": "embedding", "window": [1, 5]}
    plan, settings = small_plan(tmp_path, chain=["distill"], stages={"distill": distill})
    run = small_run(tmp_path, plan, settings)
    assert forked(run) == (1, 0), run.log.read_text()
    teacher = read_run(run.teacher("distill")).ranking
    candidates = read_run(run.candidates(plan.recipe.data.train, "bm25")).ranking
    assert 0 < len(teacher) <= 2 * distill["groups_per_step"]  # those that two steps draw, and no others
    assert {q: sorted(teacher[q]) for q in teacher} == {q: sorted(candidates[q][:5]) for q in teacher}
    assert all(-1.0 <= score <= 1.0 for query in teacher for score in teacher.scores(query))
    (kept,) = (tmp_path / "cache" / "teachers").iterdir()
    again = small_run(tmp_path, plan, settings, second=20)
    assert forked(again) == (1, 0)
    assert again.teacher("distill").read_bytes() == run.teacher("distill").read_bytes() == kept.read_bytes()


@pytest.mark.slow
def test_two_test_datasets_with_the_same_ids_are_each_scored_by_their_own_texts(tmp_path):
    plan, settings = small_plan(tmp_path, two_tests=True, chain=["contrastive"])
    run = small_run(tmp_path, plan, settings)
    assert forked(run) == (1, 0), run.log.read_text()
    scorer = Scorer.load(run.final(0, "contrastive"))
    for test in plan.recipe.data.test:
        data = open_dataset(test, settings.cache)
        ranking = read_run(run.ranking("contrastive", test, "bm25")).ranking
        for query in list(ranking)[:5]:
            pairs = [(data.queries[query], data.documents.text(doc)) for doc in ranking[query]]
            assert scorer.score(pairs) == pytest.approx(ranking.scores(query), abs=1e-4)
