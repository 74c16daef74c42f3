"""A run whose candidates and teacher were ingested refers to them, and ends with the same numbers."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cerank.datasets.open_datasets import open_dataset
from cerank.retrieval import first_stage
from cerank.retrieval.teachers import read_teacher
from cerank.trec import open_run
from cerank.trec.mapped_run import MappedRanking
from cerank.worker.run_context import RunContext
from cerank.worker.run_inputs import RunInputs, RunReference

from .small import small_plan, small_run


def test_an_ingested_run_is_referred_to_and_not_copied(tmp_path: Path, monkeypatch) -> None:
    plan, settings = small_plan(tmp_path)
    plain = small_run(tmp_path, plan, settings)
    large = small_run(tmp_path, plan, settings, 1)
    (test,) = plan.recipe.data.test
    stage = plan.recipe.stages["distill"]
    one = RunInputs(RunContext(plan, plain, None, None, None))
    expected = [one.candidates(test, "oracle"), one.teacher("distill", stage, [])]
    assert not any(isinstance(ranking, MappedRanking) for ranking in expected)

    monkeypatch.setattr(open_run, "LARGE", 1)
    other = RunInputs(RunContext(plan, large, None, None, None))  # another way of reading, the same hashes
    found = [other.candidates(test, "oracle"), other.teacher("distill", stage, [])]
    for ranking, before, path in zip(
        found, expected, (large.candidates(test, "oracle"), large.teacher("distill")), strict=True
    ):
        assert isinstance(ranking, MappedRanking)
        assert dict(ranking) == dict(before)
        assert all(ranking.scores(query) == before.scores(query) for query in before)
        assert not path.exists()
        reference = msgspec.json.decode(
            path.with_name(path.name.replace(".run.gz", ".json")).read_bytes(), type=RunReference
        )
        assert reference.sha256 == ranking.sha256
        assert reference.queries == len(before)


def test_a_large_run_is_ingested_wherever_it_is_named(tmp_path: Path, monkeypatch) -> None:
    plan, settings = small_plan(tmp_path)
    (test,) = plan.recipe.data.test
    dataset = open_dataset(test, settings.cache)
    run = tmp_path / "data" / "runs" / "oracle.run"
    small = first_stage.candidates(dataset, str(run), 3, settings.cache)
    hashes = (first_stage.fingerprint(dataset, "oracle"), first_stage.fingerprint(dataset, str(run)))
    monkeypatch.setattr(open_run, "LARGE", 1)
    for name in ("oracle", str(run)):
        ranking = first_stage.candidates(dataset, name, 3, settings.cache)
        assert isinstance(ranking, MappedRanking)
        assert dict(ranking) == dict(small)
        teacher = read_teacher(name, dataset)
        assert isinstance(teacher.ranking, MappedRanking)
        assert teacher.sha256 == hashes[0]
    assert (first_stage.fingerprint(dataset, "oracle"), first_stage.fingerprint(dataset, str(run))) == hashes
