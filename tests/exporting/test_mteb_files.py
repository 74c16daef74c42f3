"""Files that mteb reads: rankings to re-rank from, and results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cerank.errors import FormatError, UsageError
from cerank.exporting.mteb_files import MtebTask, check_task, write_predictions, write_results
from tests.refusals import refused


def test_a_ranking_and_its_measures_lie_as_mteb_nests_them_and_other_splits_stay(tmp_path: Path) -> None:
    test, dev = (MtebTask(folder=tmp_path, task="Small", split=split) for split in ("test", "dev"))
    write_predictions(test, {"q1": {"d2": 2.0, "d1": 1.0}}, "mine")
    write_predictions(dev, {"q9": {"d1": 1.0}}, "mine")
    assert json.loads((tmp_path / "Small_predictions.json").read_text()) == {
        "mteb_model_meta": {"model_name": "mine", "revision": None},
        "default": {"test": {"q1": {"d2": 2.0, "d1": 1.0}}, "dev": {"q9": {"d1": 1.0}}},
    }
    write_results(test, {"nDCG@10": {"q1": 0.5, "q2": 1.0}, "RR@10": {"q1": 1.0, "q2": 0.0}}, "ab" * 32, 2.0)
    write_results(dev, {"nDCG@10": {"q9": 0.25}}, "ab" * 32, 2.0)
    scores = json.loads((tmp_path / "Small.json").read_text())["scores"]
    assert scores["test"] == [
        {"ndcg_at_10": 0.75, "mrr_at_10": 0.5, "main_score": 0.75, "hf_subset": "default", "languages": []}
    ]
    assert scores["dev"][0]["main_score"] == 0.25


def test_what_would_be_overwritten_or_is_not_of_mteb_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    task = MtebTask(folder=tmp_path, task="Small")
    check_task(task, replace=False)
    write_predictions(task, {"q1": {"d1": 1.0}}, "mine")
    with refused(UsageError, "file-exists", "Small_predictions.json", "test"):
        check_task(task, replace=False)
    check_task(task, replace=True)
    (tmp_path / "Small.json").write_text('{"scores": 3}')
    with refused(FormatError, "wrong-json-form", "Small.json"):
        check_task(task, replace=True)
    with refused(UsageError, "folder-missing", "nowhere"):
        check_task(MtebTask(folder=tmp_path / "nowhere", task="Small"), replace=False)
    for name in ("", "../up", "a/b", ".hidden"):
        with refused(UsageError, "usage", "--mteb-task"):
            check_task(MtebTask(folder=tmp_path, task=name), replace=False)


@pytest.mark.slow
def test_mteb_computes_the_same_measures_and_reads_both_files(tmp_path: Path) -> None:
    mteb = pytest.importorskip("mteb")
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores
    from mteb.results import TaskResult

    from cerank.core.rankings import ordered
    from cerank.evaluation.measures import per_query
    from cerank.exporting.mteb_files import CUTOFFS, measure_names

    qrels = {f"q{n}": {f"d{n}": 1, f"d{n + 3}": 2} for n in range(6)}
    scores = {query: {f"d{n}": float((7 * n + at) % 11) for n in range(10)} for at, query in enumerate(qrels)}
    task = MtebTask(folder=tmp_path, task="MockRetrievalTask", split="val")
    write_predictions(task, scores, "mine")
    write_results(task, per_query(list(measure_names()), qrels, ordered(scores)), "ab" * 32, 1.0)
    read = TaskResult.from_disk(tmp_path / "MockRetrievalTask.json")
    [own] = read.scores["val"]
    metrics = calculate_retrieval_scores(scores, qrels, list(CUTOFFS))
    for key, name in (("ndcg", "NDCG"), ("recall", "Recall"), ("precision", "P")):
        values = next(value for value in metrics if isinstance(value, dict) and f"{name}@10" in value)
        assert own[f"{key}_at_10"] == pytest.approx(values[f"{name}@10"], abs=1e-5)
    assert mteb is not None
