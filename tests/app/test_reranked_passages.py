"""Scores of passages beside a ranking of `cerank rerank`."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank.app import reranked_passages
from cerank.app.rerank_dataset import RerankRequest, rerank
from cerank.errors import UsageError
from cerank.kernels import processor
from cerank.runs import checksums
from cerank.runs.records import Precisions
from cerank.settings import Settings
from tests.refusals import refused
from tests.worker.small import small_plan, small_run


def test_the_scores_of_passages_and_the_ranking_never_go_to_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(lab=tmp_path / "lab", cache=tmp_path / "cache", device="cpu", threads=1, format="")
    request = RerankRequest(
        checkpoint="model",
        dataset="set",
        first_stage="bm25",
        depth=1,
        precision=None,
        output=Path("out.run"),
        passage_scores=tmp_path / "out.run",
    )
    with refused(UsageError, "options-conflict", "--passage-scores", "out"):
        rerank(settings, request, lambda *_: None)


@pytest.mark.parametrize(
    ("of_run", "multiplies", "device", "expected"),
    [
        ("bf16", True, "cpu", "bf16"),
        ("bf16", False, "cpu", None),
        ("tf32", True, "cpu", None),
        ("tf32", True, "cuda", "tf32"),
        ("fp32", False, "cuda", "fp32"),
    ],
)
def test_a_model_scores_in_the_precision_of_its_run_where_the_device_has_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    of_run: str,
    multiplies: bool,
    device: str,
    expected: str | None,
) -> None:
    monkeypatch.setattr(processor, "multiplies_bf16", lambda: multiplies)
    plan, settings = small_plan(tmp_path)
    run = small_run(tmp_path, plan, settings)
    last = plan.recipe.chain[-1]
    checksums.save(run, run.precisions, Precisions(dict.fromkeys(plan.recipe.chain, "fp32"), {last: of_run}))
    precision, notes = reranked_passages.precision_of_run(run.final(len(plan.recipe.chain) - 1, last), device)
    assert precision == expected
    assert len(notes) == 1
    assert of_run in notes[0]
    assert "--precision" in notes[0]
    assert reranked_passages.precision_of_run(tmp_path / "model", device) == (None, ())
