"""Scores of passages beside a ranking of `cerank rerank`."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank.app.rerank_dataset import RerankRequest, rerank
from cerank.errors import UsageError
from cerank.settings import Settings
from tests.refusals import refused


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
