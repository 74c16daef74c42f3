"""A base that reads documents in a form of its own: what trains and re-ranks reads it, and nothing else does."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import torch
from typer.testing import CliRunner

from cerank import recipes
from cerank.app import rerank_dataset, shared_reranking
from cerank.app.comparison import comparisons
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.app.comparison.named_systems import targets_of
from cerank.app.matrix import matrix_runs
from cerank.app.plans import plan_of
from cerank.app.publishing.export_model import ExportRequest, export
from cerank.app.rankings.retrieve_documents import RetrievalRequest, retrieve
from cerank.app.run_texts import some_texts
from cerank.cli.typer_app import app
from cerank.datasets.document_fields import with_template
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import ExitCode, RecipeError, UsageError
from cerank.files.lease import Lease
from cerank.inference import rerank as rerank_module
from cerank.planning.stage_keys import stage_keys
from cerank.recipes.plan import Plan
from cerank.recipes.recipe_checks import recipe_from
from cerank.recipes.sections.teacher_specs import TeacherSpec
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.settings import Settings
from cerank.teachers import declared
from cerank.teachers.make import make
from cerank.teachers.requests import TeachRequest
from cerank.trec.text_io import read_run
from tests.model_fixtures import write_tiny
from tests.plan_fixtures import NOW
from tests.refusals import refused
from tests.worker.forked_ranks import by_forks
from tests.worker.small import STAGE, bits_of, small_run, write_dataset

OWN = "{title} {text}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A dataset whose titles are words that its texts have, too, a base, and the settings of a lab."""
    folder = tmp_path_factory.mktemp("bases")
    dataset = write_dataset(folder / "data")
    rows = [line.split("\t") for line in (dataset / "docs.tsv").read_text().splitlines()]
    lines = [json.dumps({"doc_id": key, "title": text.split()[0], "text": text}) for key, text in rows]
    (dataset / "docs.jsonl").write_text("\n".join(lines))
    (dataset / "docs.tsv").unlink()
    settings = Settings(lab=folder / "lab", cache=folder / "cache", device="cpu", threads=1, format="")
    bases = [str(write_tiny(folder / name).folder) for name in ("base", "other")]
    return SimpleNamespace(folder=folder, settings=settings, data=str(dataset), bases=bases)


def values_of(made: SimpleNamespace, template: str = "{text}", **changes: object) -> dict[str, object]:
    return {
        "name": "written",
        "base": made.bases[0],
        "pooling": "mean",
        "chain": ["c"],
        "force": ["shared_queries"],
        "data": {
            "train": f"{made.data}[:50%]",
            "validation": f"{made.data}[50%:70%]",
            "test": [f"{made.data}[70%:]"],
            "first_stages": ["bm25"],
            "depth": 8,
            "document_template": template,
        },
        "stages": {"c": {**STAGE, "steps": 2, "validate_every": 2}},
        **changes,
    }


def planned(made: SimpleNamespace, template: str = "{text}", **changes: object) -> Plan:
    return plan_of(recipe_from(values_of(made, template, **changes), "test"), made.settings, now=NOW)


def carried_out(made: SimpleNamespace, plan: Plan) -> RunFolder:
    from cerank.worker.__main__ import run_attempt
    from cerank.worker.run_context import StopFlag

    run = run_store.create(made.settings.lab, plan, b"", NOW)
    with Lease.take(run.lease, datetime(2026, 1, 2, tzinfo=UTC)):
        assert run_attempt(run, StopFlag(run.stop)) == 0, run.failure.read_text()
    return run


def test_a_template_of_the_base_changes_its_stages_and_no_other_input(made: SimpleNamespace) -> None:
    plain, own = planned(made), planned(made, base_template=OWN)
    assert [entry.sha256 for entry in own.inputs] == [entry.sha256 for entry in plain.inputs]
    assert own.fingerprint != plain.fingerprint
    assert stage_keys(own) != stage_keys(plain)
    assert any(OWN in note for entry in own.inputs if entry.role == "base" for note in entry.notes)
    assert planned(made, base_template="").fingerprint == plain.fingerprint


def test_a_field_that_the_documents_lack_is_refused_with_the_key_of_the_base(made: SimpleNamespace) -> None:
    with refused(UsageError, "document-field-unknown", "headline", "title", "text", "base_template"):
        planned(made, base_template="{headline}")
    with refused(UsageError, "template-wrong", "base_template"):
        planned(made, base_template="{title")


def matrix_of(made: SimpleNamespace, templates: str, *overrides: str, **changes: object) -> matrix_runs.MatrixRuns:
    (made.folder / "r.toml").write_text(recipes.render(recipe_from(values_of(made), "test")))
    file = made.folder / "grid.toml"
    file.write_text(f'name = "grid"\nrecipes = ["./r.toml"]\nbases = ["./base", "./other"]\n{templates}')
    return matrix_runs.load_runs(recipes.load_matrix(str(file), changes), overrides)


def test_one_of_two_bases_of_a_matrix_reads_documents_in_a_form_of_its_own(made: SimpleNamespace) -> None:
    templates = f'[base_templates]\n"./other" = "{OWN}"\n'
    grid = matrix_of(made, templates)
    forms = {Path(cell.recipe.base).name: cell.recipe.base_template for cell in grid.cells}
    assert forms == {"base": "", "other": OWN}
    plain = matrix_of(made, "")
    assert [cell.recipe == own.recipe for cell, own in zip(plain.cells, grid.cells, strict=True)] == [True, False]
    assert not matrix_runs.outline(grid, made.settings).needs
    (alone,) = matrix_of(made, templates, bases=[made.bases[0]]).cells
    assert alone.recipe.base_template == ""
    said = matrix_of(made, templates, "base_template=A {text}").cells
    assert {cell.recipe.base_template for cell in said} == {"A {text}"}


def test_a_template_for_no_base_of_the_matrix_or_one_that_a_factor_sets_is_refused(made: SimpleNamespace) -> None:
    with refused(RecipeError, "recipe", "base_templates.minilm"):
        matrix_of(made, f'[base_templates]\nminilm = "{OWN}"\n')
    factor = '[factors.form.plain]\nbase_template = ""\n[factors.form.own]\nbase_template = "{text}"\n'
    with refused(RecipeError, "recipe", "factors.form"):
        matrix_of(made, f'[base_templates]\n"./other" = "{OWN}"\n{factor}')


def test_the_dry_run_of_a_matrix_names_the_form_and_fields_that_are_missing(made: SimpleNamespace) -> None:
    matrix_of(made, '[base_templates]\n"./other" = "{headline}"\n')
    words = ["run", "--matrix", str(made.folder / "grid.toml"), "--dry-run", "--lab", str(made.settings.lab)]
    words += ["--pairs-per-second", "100"]  # so that this machine is not measured
    result = CliRunner().invoke(app, [*words, "--cache", str(made.settings.cache), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "{headline}" in result.output
    needs = matrix_runs.outline(matrix_of(made, '[base_templates]\n"./other" = "{headline}"\n'), made.settings).needs
    assert {need.kind for need in needs} == {"document fields"}
    assert all("headline" in need.text for need in needs)


@pytest.mark.slow
def test_a_run_reads_what_its_template_says_and_keeps_the_first_stage(made: SimpleNamespace, tmp_path: Path) -> None:
    plain, own = carried_out(made, planned(made)), carried_out(made, planned(made, base_template=OWN))
    test = f"{made.data}[70%:]"
    first = [read_run(run.candidates(test, "bm25")).ranking for run in (plain, own)]
    assert {query: first[0][query] for query in first[0]} == {query: first[1][query] for query in first[1]}
    weights = [(run.final(0, "c") / "model.safetensors").read_bytes() for run in (plain, own)]
    assert weights[0] != weights[1]  # the titles were read in training
    rankings = [read_run(run.ranking("c", test, "bm25")).ranking for run in (plain, own)]
    assert [rankings[0].scores(query) for query in rankings[0]] != [rankings[1].scores(query) for query in rankings[1]]
    (texts,) = some_texts(made.settings, own, run_store.load_plan(own), 1)
    assert all(text.split()[0] == text.split()[1] for text in texts.documents)
    output = tmp_path / "again.run"
    words = ["rerank", own.name, "--first-stage", "bm25", "--dataset", test, "--depth", "8", "-o", str(output)]
    places = ["--lab", str(made.settings.lab), "--cache", str(made.settings.cache), "--device", "cpu", "--threads", "1"]
    result = CliRunner().invoke(app, [*words, *places])
    assert result.exit_code == 0, result.output
    again = read_run(output).ranking
    assert {query: (again[query], again.scores(query)) for query in again} == {
        query: (rankings[1][query], rankings[1].scores(query)) for query in rankings[1]
    }


PASSAGES = {"aggregation": "MeanP", "max_passages": 3, "length": 5, "stride": 3}


@pytest.fixture(scope="module")
def trained_on_passages(made: SimpleNamespace) -> RunFolder:
    return carried_out(made, planned(made, "{text} {title}", base_template=OWN, passages=PASSAGES))


def scores_of(path: Path) -> dict[str, dict[str, float]]:
    ranking = read_run(path).ranking
    return {query: dict(zip(ranking[query], ranking.scores(query), strict=True)) for query in ranking}


CUT = ["--aggregation", "TopMeanP", "--max-passages", "2", "--passage-length", "4", "--stride", "2", "--top", "2"]


@pytest.mark.parametrize(
    "options", [[], ["--template", "{title}: {text} {title}"], CUT, ["--aggregation", "none"]], ids=" ".join
)
def test_retrieve_gives_a_pair_the_score_that_rerank_gives_it(
    made: SimpleNamespace, trained_on_passages: RunFolder, tmp_path: Path, options: list[str]
) -> None:
    test, found, again = f"{made.data}[70%:]", tmp_path / "found.run", tmp_path / "again.run"
    places = ["--lab", str(made.settings.lab), "--cache", str(made.settings.cache), "--device", "cpu", "--threads", "1"]
    places += options
    words = ["retrieve", "--base", trained_on_passages.name, "--dataset", test, "--method", "anncur", "--budget", "12"]
    result = CliRunner().invoke(app, [*words, "--train-queries", "9", "--to", str(found), *places])
    assert result.exit_code == 0, result.output
    words = ["rerank", trained_on_passages.name, "--first-stage", str(found), "--dataset", test, "--depth", "12"]
    result = CliRunner().invoke(app, [*words, "-o", str(again), *places])
    assert result.exit_code == 0, result.output
    retrieved, reranked = scores_of(found), scores_of(again)
    assert {query: len(scores) for query, scores in retrieved.items()} == dict.fromkeys(reranked, 12)
    for query, scores in retrieved.items():
        assert scores == pytest.approx(reranked[query], abs=2e-6)
    if options:  # and not what the run's own way of reading gives
        result = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "own.run"), *places[: -len(options)]])
        own = scores_of(tmp_path / "own.run")
        assert any(own[query] != pytest.approx(scores, abs=1e-4) for query, scores in reranked.items())


def test_a_models_run_decides_how_it_reads_documents_as_a_teacher_too(
    made: SimpleNamespace, trained_on_passages: RunFolder, tmp_path: Path
) -> None:
    test, model = f"{made.data}[70%:]", str(trained_on_passages.final(0, "c"))
    specs = {"own": TeacherSpec(kind="cross-encoder", model=model, depth=8)}
    dataset = open_dataset(test, made.settings.cache)
    request = TeachRequest(
        lab=tmp_path / "lab",
        cache=made.settings.cache,
        name="own",
        teachers=specs,
        dataset=with_template(dataset, "{text} {title}"),  # what bm25 of the run searched
        first_stage="bm25",
        queries=tuple(dataset.queries),
    )
    taught = make(request)
    places = ["--lab", str(made.settings.lab), "--cache", str(made.settings.cache), "--device", "cpu", "--threads", "1"]
    words = ["rerank", trained_on_passages.name, "--first-stage", "bm25", "--dataset", test, "--depth", "8"]
    for out, options in (("own.run", []), ("whole.run", ["--aggregation", "none", "--template", "{text}"])):
        result = CliRunner().invoke(app, [*words, "-o", str(tmp_path / out), *options, *places])
        assert result.exit_code == 0, result.output
    own, whole = scores_of(tmp_path / "own.run"), scores_of(tmp_path / "whole.run")
    assert taught.ranking.keys() == own.keys()
    for query, scores in own.items():
        found = dict(zip(taught.ranking[query], taught.ranking.scores(query), strict=True))
        assert found == pytest.approx(scores, abs=2e-6)
    assert any(
        whole[query].get(doc, score) != pytest.approx(score, abs=1e-4)
        for query, scores in own.items()
        for doc, score in scores.items()
    )
    assert taught.provenance.decisive["documents"]["template"] == OWN
    base = {"own": msgspec.structs.replace(specs["own"], model=made.bases[0])}
    assert "documents" not in declared.decisive_parts(base["own"], base)
    (note,) = declared.documents_read(specs["own"], specs, dataset, "teachers.own.model")
    assert OWN in note
    assert PASSAGES["aggregation"] in note
    assert declared.documents_read(base["own"], base, dataset, "teachers.own.model") == ()
    untitled = open_dataset(str(write_dataset(tmp_path / "untitled")), made.settings.cache)
    with refused(UsageError, "document-field-unknown", "title", "teachers.own.model"):
        declared.documents_read(specs["own"], specs, untitled, "teachers.own.model")
    again = msgspec.structs.replace(specs["own"], kind="ensemble", model="", members=("own", "own"))
    with refused(UsageError, "document-field-unknown", "title"):
        declared.documents_read(again, specs, untitled, "teachers.both.model")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--stride", "4"], "--stride"),
        (["--aggregation", "MaxP", "--passage-length", "4", "--stride", "9"], "--stride"),
        (["--aggregation", "MaxP", "--passage-length", "4000"], "4000"),
    ],
)
def test_passages_that_cannot_be_cut_are_refused_by_retrieve_as_by_rerank(
    made: SimpleNamespace, trained_on_passages: RunFolder, tmp_path: Path, options: list[str], named: str
) -> None:
    words = ["retrieve", "--base", trained_on_passages.name, "--dataset", f"{made.data}[70%:]", "--budget", "12"]
    places = ["--lab", str(made.settings.lab), "--cache", str(made.settings.cache), "--device", "cpu", "--threads", "1"]
    done = CliRunner().invoke(app, [*words, "--train-queries", "9", "--to", str(tmp_path / "x.run"), *options, *places])
    assert isinstance(done.exception, UsageError)
    assert named in f"{done.exception.where} {done.exception}"


@pytest.mark.slow
def test_a_ranking_of_documents_in_another_form_is_still_of_its_collection(
    made: SimpleNamespace, trained_on_passages: RunFolder, tmp_path: Path
) -> None:
    out, test = tmp_path / "out.run", f"{made.data}[70%:]"
    places = ["--lab", str(made.settings.lab), "--cache", str(made.settings.cache), "--device", "cpu", "--threads", "1"]
    words = ["rerank", trained_on_passages.name, "--first-stage", "bm25", "--dataset", test, "--depth", "5"]
    result = CliRunner().invoke(app, [*words, "--template", "{title}: {text}", "--metadata", "-o", str(out), *places])
    assert result.exit_code == 0, result.output
    assert "{title}: {text}" in out.read_text().partition("\nq")[0]
    request = ComparisonRequest(targets=(str(out),), dataset=test, measures=("RR@10",))
    (system,), _ = comparisons.measured_systems(made.settings, targets_of(made.settings.lab, request.targets), request)
    assert not [note for note in system.notes if str(made.data) in note]


@pytest.mark.slow
def test_what_a_run_reads_decides_what_is_retrieved_and_its_index(
    made: SimpleNamespace, trained_on_passages: RunFolder
) -> None:
    def retrieved(template: str) -> tuple[bytes, int]:
        built: list[str] = []
        request = RetrievalRequest(
            base=trained_on_passages.name,
            dataset=f"{made.data}[70%:]",
            method="anncur",
            budget=10,
            train_queries=7,
            document_template=template,
        )
        done = retrieve(made.settings, request, lambda what, *_: built.append(what))
        return done.run, built.count("index")

    as_in_run, built = retrieved("")
    assert built == 7
    assert retrieved("") == (as_in_run, 0)  # from the cache
    other, built = retrieved("{text}")
    assert built == 7  # other texts have an index of their own
    assert other != as_in_run
    assert retrieved(OWN)[0] == as_in_run  # the text that the model read, said in another way
    with refused(UsageError, "document-field-unknown", "headline"):
        retrieved("{headline}")


@pytest.mark.slow
def test_the_model_card_says_in_which_form_and_which_passages_documents_were_read(
    made: SimpleNamespace, trained_on_passages: RunFolder, tmp_path: Path
) -> None:
    pytest.importorskip("sentence_transformers")
    request = ExportRequest(run=trained_on_passages.name, form="sentence-transformers")
    export(made.settings, request, tmp_path / "model", lambda _: None)
    card = (tmp_path / "model" / "README.md").read_text()
    use = card.partition("## Use")[2].partition("## Data")[0]
    assert f"\n{OWN}\n" in use
    for part in ("MeanP", "5 tokens", "up to 3"):
        assert part in use


@pytest.fixture
def in_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of two queries, so that there is something to share; further processes are forks of this one."""
    for module in (rerank_dataset, rerank_module):
        monkeypatch.setattr(module, "CHUNK", 2)
    monkeypatch.setattr(shared_reranking, "START", "fork")
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # a fork cannot set them


@pytest.mark.slow
@pytest.mark.usefixtures("in_small_chunks")
def test_shards_and_devices_read_the_form_of_the_base_and_write_the_bytes_of_one_command(
    made: SimpleNamespace, trained_on_passages: RunFolder, tmp_path: Path
) -> None:
    test = f"{made.data}[70%:]"
    words = ["rerank", trained_on_passages.name, "--first-stage", "bm25", "--dataset", test, "--depth", "8"]
    words += ["--lab", str(made.settings.lab), "--device", "cpu", "--threads", "1"]

    def written(name: str, *options: str) -> Path:
        output = tmp_path / name
        own = ["--cache", str(tmp_path / f"cache-of-{name}"), "-o", str(output)]
        result = CliRunner().invoke(app, [*words, *own, *options])
        assert result.exit_code == 0, result.output
        return output

    one = written("one.run").read_bytes()
    in_run = scores_of(trained_on_passages.ranking("c", test, "bm25"))
    for query, scores in scores_of(tmp_path / "one.run").items():
        assert scores == pytest.approx(in_run[query], abs=2e-6)
    assert written("other.run", "--template", "{text}").read_bytes() != one
    assert written("two.run", "--devices", "2").read_bytes() == one
    for shard in ("1/3", "2/3", "3/3"):
        written("shards.run", "--shard", shard, *(("--devices", "cpu,cpu") if shard == "2/3" else ()))
    assert written("shards.run", "--merge").read_bytes() == one


@pytest.mark.slow
@pytest.mark.usefixtures("in_small_chunks")
def test_a_run_on_two_devices_reads_the_form_of_the_base_and_has_the_bytes_of_one(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    stage = {**STAGE, "steps": 6, "groups_per_step": 4, "validate_every": 3}
    recipe = recipe_from(values_of(made, "{text} {title}", base_template=OWN, stages={"c": stage}), "test")
    settings = msgspec.structs.replace(made.settings, devices="2", cache=tmp_path / "cache")
    shared = plan_of(recipe, settings, now=NOW)
    plain = plan_of(msgspec.structs.replace(recipe, base_template=""), settings, now=NOW)
    one, two, of_plain = (small_run(tmp_path, plan, settings, n) for n, plan in enumerate((shared, shared, plain)))
    assert by_forks(one, 1) == [ExitCode.OK], one.log.read_text()
    for folder in (tmp_path / "cache").glob("scores*"):
        shutil.rmtree(folder)  # else two would find the scores of one
    assert by_forks(two, 2) == [ExitCode.OK, ExitCode.OK], two.log.read_text()
    assert bits_of(one) == bits_of(two)
    assert by_forks(of_plain, 2) == [ExitCode.OK, ExitCode.OK], of_plain.log.read_text()
    weights, of_others = (run.final(0, "c") / "model.safetensors" for run in (two, of_plain))
    assert weights.read_bytes() != of_others.read_bytes()
