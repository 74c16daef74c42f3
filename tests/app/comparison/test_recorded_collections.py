"""A run file on a collection whose ids are those of its own, but whose documents are others: its record tells."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cerank.app.comparison import comparisons
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.app.comparison.named_systems import targets_of
from cerank.cli.typer_app import app
from cerank.datasets.open_datasets import open_dataset
from cerank.exporting.run_metadata import MetadataRequest, RerankedRun, header
from cerank.runs import run_store
from cerank.settings import Settings
from tests.app.made_runs import made_run
from tests.worker.small import small_plan

ROWS = "".join(f"q{at} Q0 d{at} 1 2.5 t\nq{at} Q0 d9 2 1.5 t\n" for at in range(6))


def collection(folder: Path, about: str) -> Path:
    (folder / "runs").mkdir(parents=True)
    (folder / "docs.tsv").write_text("".join(f"d{at}\tdocument {at} about {about}\n" for at in range(10)))
    (folder / "queries.tsv").write_text("".join(f"q{at}\tquery {at}\n" for at in range(6)))
    (folder / "qrels").write_text("".join(f"q{at} 0 d{at} 1\n" for at in range(6)))
    (folder / "runs" / "bm25.run").write_text(ROWS)
    return folder


@pytest.fixture
def places(tmp_path: Path) -> tuple[Settings, Path, Path, Path]:
    """Settings, two collections of the same ids, and a copy of the first."""
    settings = Settings(lab=tmp_path / "lab", cache=tmp_path / "cache", device="cpu", threads=1, format="")
    first, other = collection(tmp_path / "birds", "birds"), collection(tmp_path / "fish", "fish")
    shutil.copytree(first, tmp_path / "copy")
    return settings, first, other, tmp_path / "copy"


def doubts(settings: Settings, path: Path, dataset: str) -> list[str]:
    request = ComparisonRequest(targets=(str(path),), dataset=dataset, measures=("RR@10",))
    (system,), _ = comparisons.measured_systems(settings, targets_of(settings.lab, request.targets), request)
    return [note for note in system.notes if note.startswith("according to ")]


def test_a_header_that_names_other_documents_raises_a_doubt(places, tmp_path):
    settings, first, other, copy = places
    made = RerankedRun(
        tag="t", model="m", model_sha256="", precision="", device="", threads=1, first_stage="bm25",
        first_stage_sha256="", depth=2, dataset=str(first), ir_datasets="", queries=6, pairs=12, pairs_scored=12,
        documents_sha256=open_dataset(str(first), settings.cache).documents.fingerprint(),
    )  # fmt: skip
    lines = header(MetadataRequest(command=("cerank", "rerank")), made, None)
    path = tmp_path / "reranked.run"
    path.write_text("".join(f"{line}\n" for line in lines) + ROWS)
    assert doubts(settings, path, str(first)) == doubts(settings, path, str(copy)) == []
    (doubt,) = doubts(settings, path, str(other))
    assert "birds" in doubt
    assert "fish" in doubt
    words = ["evaluate", str(path), "--dataset", str(other), "--cache", str(settings.cache)]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output  # a doubt, for it may be a new reading of the same texts
    assert "birds" in shown.output
    plain = tmp_path / "plain.run"
    plain.write_text(ROWS)
    assert doubts(settings, plain, str(other)) == []  # no record says where it is from


def test_a_run_that_another_dataset_brings_raises_a_doubt(places):
    settings, first, other, copy = places
    path = first / "runs" / "bm25.run"
    assert doubts(settings, path, str(first)) == doubts(settings, path, str(copy)) == []
    assert len(doubts(settings, path, str(other))) == 1
    assert doubts(settings, path, f"{first}[:50%]") == []  # a part of its own


def test_a_ranking_of_a_run_of_the_lab_raises_a_doubt_by_its_plan(tmp_path):
    plan, settings = small_plan(tmp_path)
    folder, test = made_run(settings, plan, "one"), plan.recipe.data.test[0]
    path = folder.ranking("contrastive", test, "bm25")
    assert doubts(settings, path, test) == []
    assert doubts(settings, path, test.partition("[")[0]) == []  # the whole of which it was a part
    copy = shutil.copytree(tmp_path / "data", tmp_path / "copy")
    assert doubts(settings, path, str(copy)) == []  # the same documents
    (doubt,) = doubts(settings, path, str(tmp_path / "apart"))
    assert run_store.short_name(folder) in doubt


def test_a_part_that_a_header_names_from_the_home_folder_is_of_its_own_whole(places, tmp_path, monkeypatch):
    settings, first, _, _ = places
    monkeypatch.setenv("HOME", str(tmp_path))
    made = RerankedRun(
        tag="t", model="m", model_sha256="", precision="", device="", threads=1, first_stage="bm25",
        first_stage_sha256="", depth=2, dataset=f"{first}[50%:]", ir_datasets="", queries=3, pairs=6, pairs_scored=6,
        documents_sha256="", dataset_sha256=open_dataset(f"{first}[50%:]", settings.cache).fingerprint(),
    )  # fmt: skip
    path = tmp_path / "exported.run"
    path.write_text("".join(f"{line}\n" for line in header(MetadataRequest(command=("c",)), made, None)) + ROWS)
    assert "~/birds" in path.read_text()
    assert doubts(settings, path, str(first)) == []
