"""What mining and a look at negatives read of documents: by a template, and as a re-ranker's run did."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cerank.app.mining import planned_negatives
from cerank.app.mining.mine_candidates import Mined, MiningRequest, mine
from cerank.app.mining.negative_samples import SampleRequest, sample
from cerank.app.plans import plan_of
from cerank.errors import UsageError
from cerank.files import manifests
from cerank.models import bases, cross_encoder
from cerank.recipes.plan import Plan
from cerank.recipes.recipe_checks import recipe_from
from cerank.runs import run_store
from cerank.settings import Settings
from cerank.tokenization.tokens import TokenLimits
from cerank.trec.text_io import read_run
from tests.model_fixtures import write_tiny
from tests.plan_fixtures import NOW
from tests.refusals import refused
from tests.worker.small import STAGE, write_dataset

TEMPLATE = "{title}. {text}"
PASSAGES = {"max_passages": 2, "length": 4, "stride": 3, "aggregation": "MaxP"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two datasets whose documents have titles, a base, and the settings of a lab."""
    folder = tmp_path_factory.mktemp("titled")
    for name, seed in (("data", 7), ("apart", 8)):
        dataset = write_dataset(folder / name, seed=seed)
        rows = [line.split("\t") for line in (dataset / "docs.tsv").read_text().splitlines()]
        lines = [json.dumps({"doc_id": key, "title": f"title of {key}", "text": text}) for key, text in rows]
        (dataset / "docs.jsonl").write_text("\n".join(lines))
        (dataset / "docs.tsv").unlink()
    base = write_tiny(folder / "base").folder
    settings = Settings(lab=folder / "lab", cache=folder / "cache", device="cpu", threads=1, format="")
    return SimpleNamespace(folder=folder, settings=settings, base=base, data=str(folder / "data"))


def write_untrained(made: SimpleNamespace, folder: Path) -> None:
    """Write a re-ranker with a fresh head, as a stage leaves it."""
    model = cross_encoder.load(bases.locate(str(made.base)), "mean", 0)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with manifests.checksummed_folder(folder) as inside:
        cross_encoder.save(model, cross_encoder.load_tokenizer(made.base), inside, TokenLimits(24, 8))


def planned(made: SimpleNamespace, stage: dict[str, object], template: str = TEMPLATE, **changes: object) -> Plan:
    values = {
        "name": "titled",
        "base": str(made.base),
        "pooling": "mean",
        "chain": ["c"],
        "force": ["shared_queries"],
        "data": {
            "train": f"{made.data}[:50%]",
            "validation": f"{made.folder / 'apart'}[50%:70%]",
            "test": [f"{made.data}[70%:]"],
            "first_stages": ["bm25"],
            "depth": 8,
            "document_template": template,
        },
        "stages": {"c": {**STAGE, **stage}},
        **changes,
    }
    return plan_of(recipe_from(values, "test"), made.settings, now=NOW)


def mined(made: SimpleNamespace, output: Path, by: str = "bm25", **changes: Any) -> Mined:
    request = MiningRequest(dataset=f"{made.data}[:50%]", by=by, output=output, depth=5, now=NOW, **changes)
    return mine(made.settings, request, lambda *_: None)


def test_a_first_stage_takes_no_grade_of_positives(made: SimpleNamespace, tmp_path: Path) -> None:
    with refused(UsageError, "options-conflict", "--relevance"):
        mined(made, tmp_path / "graded.run", relevance=2)
    assert not (tmp_path / "graded.run").exists()


def test_candidates_are_mined_from_documents_as_the_recipe_writes_them(made: SimpleNamespace, tmp_path: Path) -> None:
    plain = mined(made, tmp_path / "plain.run")
    source = {"source": "mined", "run": str(plain.path), "ranks": [1, 5]}
    with refused(UsageError, "mined-from-other-documents") as caught:
        planned(made, {"negative_sources": [source]})
    assert f"--template '{TEMPLATE}'" in caught.value.hint
    written = mined(made, tmp_path / "written.run", document_template=TEMPLATE)
    assert written.provenance.settings["document_template"] == TEMPLATE
    planned(made, {"negative_sources": [{**source, "run": str(written.path)}]})
    shown = sample(made.settings, SampleRequest(what=str(written.path), queries=2))
    assert all(row.negative_text.startswith(f"title of {row.negative}. ") for row in shown.rows)


def test_a_look_at_a_run_shows_documents_as_its_recipe_writes_them(made: SimpleNamespace) -> None:
    plan = planned(made, {"negative_sources": [{"source": "first-stage"}]})
    run = run_store.create(made.settings.lab, plan, b"", NOW)
    shown = sample(made.settings, SampleRequest(what=run.name, queries=3))
    assert shown.rows
    assert all(row.negative_text.startswith(f"title of {row.negative}. ") for row in shown.rows)
    assert planned_negatives.table(plan) is not None


def test_a_reranker_of_a_run_mines_by_what_it_was_trained_to_read(made: SimpleNamespace, tmp_path: Path) -> None:
    run = run_store.create(made.settings.lab, planned(made, {}, passages=PASSAGES), b"", NOW)
    write_untrained(made, run.final(0, "c"))
    found = mined(made, tmp_path / "own.run", run.name)
    assert found.provenance.settings["document_template"] == TEMPLATE
    assert "MaxP" in str(found.provenance.settings["passages"])
    assert any("2 passages of 4 tokens" in note for note in found.notes)


def test_a_first_stage_is_refused_where_no_reranker_orders_its_candidates(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    with refused(UsageError, "options-conflict", "--first-stage"):
        mined(made, tmp_path / "a.run", first_stage="oracle")


def test_a_positive_with_the_id_of_its_query_is_scored_where_the_dataset_judges_such(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    (tmp_path / "docs.tsv").write_text("5\tgamma\na\talpha beta\n")
    (tmp_path / "queries.tsv").write_text("5\talpha\n")
    (tmp_path / "qrels").write_text("5 0 5 1\n")
    write_untrained(made, tmp_path / "model")
    request = MiningRequest(dataset=str(tmp_path), by=str(tmp_path / "model"), output=tmp_path / "m.run", now=NOW)
    found = mine(made.settings, request, lambda *_: None)
    assert set(read_run(found.path).ranking["5"]) == {"5", "a"}
