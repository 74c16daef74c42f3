"""`cerank rerank` over several collections: a file for each that is on disk, and errors before anything is scored."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cerank.app.rankings import rerank_collections
from cerank.app.rerank_dataset import RerankRequest
from cerank.cli.typer_app import app
from cerank.errors import UsageError
from cerank.exporting.mteb_files import MtebTask
from cerank.settings import Settings
from cerank.trec.text_io import read_run
from tests.refusals import refused
from tests.worker.small import write_dataset


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    for place, name in enumerate(("one", "two")):
        write_dataset(tmp_path / "sets" / name, queries=6, documents=12, seed=place)
    return tmp_path


def asked(folder: Path, **changes: object) -> RerankRequest:
    values = {
        "checkpoint": "model",
        "dataset": f"{folder}/sets/*",
        "first_stage": "oracle",
        "depth": 5,
        "precision": None,
        "output": folder / "r-{dataset}.run",
        **changes,
    }
    return RerankRequest(**values)


def settings_of(folder: Path) -> Settings:
    return Settings(lab=folder / "lab", cache=folder / "cache", device="cpu", threads=1, format="")


def test_each_collection_has_a_file_of_its_own(sets):
    requests, note = rerank_collections.requests_of(settings_of(sets), asked(sets))
    assert [request.output.name for request in requests] == ["r-one.run", "r-two.run"]
    assert "2 collections" in note


def test_what_no_file_could_be_written_for_is_refused_before_anything_is_scored(sets):
    settings = settings_of(sets)
    with refused(UsageError, "collections-output"):
        rerank_collections.requests_of(settings, asked(sets, output=sets / "one.run"))
    with refused(UsageError, "options-conflict"):
        task = MtebTask(folder=sets, task="x", subset="default", split="test")
        rerank_collections.requests_of(settings, asked(sets, mteb=task))
    (sets / "r-two.run").write_text("")
    with refused(UsageError, "file-exists"):
        rerank_collections.requests_of(settings, asked(sets))
    write_dataset(sets / "more" / "one", queries=4)
    with refused(UsageError, "collections-output", "r-one.run"):
        rerank_collections.requests_of(settings, asked(sets, dataset=f"{sets}/sets/one+{sets}/more/one"))


@pytest.mark.slow
def test_a_trained_model_reranks_all_of_them_and_they_are_compared(sets, trained):
    places = ["--lab", str(trained.settings.lab), "--cache", str(sets / "cache")]
    words = ["brisk-otter", "--first-stage", "oracle", "--dataset", f"{sets}/sets/*", "--depth", "5"]
    done = CliRunner().invoke(app, ["rerank", *words, "-o", f"{sets}/r-{{dataset}}.run", *places, "--device", "cpu"])
    assert done.exit_code == 0, (done.output, done.exception)
    assert [Path(line).name for line in done.stdout.split()] == ["r-one.run", "r-two.run"]
    for name in ("one", "two"):
        before, after = (
            read_run(path).ranking for path in (sets / "sets" / name / "runs" / "oracle.run", sets / f"r-{name}.run")
        )
        assert all(set(after[query]) == set(before[query][:5]) for query in before)
    words = ["compare", "oracle", f"{sets}/r-{{dataset}}.run", "--dataset", f"{sets}/sets/*", "--format", "table"]
    compared = CliRunner().invoke(app, [*words, *places])
    assert compared.exit_code == 0, (compared.output, compared.exception)
