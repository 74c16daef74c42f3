"""`cerank rerank`, from a model folder to a file: the scores are those of sentence-transformers' CrossEncoder."""

from __future__ import annotations

import os
import random
import signal

import pytest
import torch
from typer.testing import CliRunner

from cerank.app import rerank_dataset, shared_reranking
from cerank.cli.typer_app import app
from cerank.errors import MissingError, RunFailedError, UsageError
from cerank.inference import rerank as rerank_module
from cerank.inference.stored_chunks import parse_shard
from cerank.models import forward_pass
from tests.model_fixtures import WORDS
from tests.models.family_fixtures import write_encoder
from tests.models.test_model_reading import write_modules
from tests.refusals import refused

DEPTH = 6


@pytest.fixture(scope="module")
def texts():
    """Queries and documents with their candidates; of both, some are far beyond the 80 positions of the model."""
    draw = random.Random(3)
    documents = {f"d{i}": " ".join(draw.choices(WORDS, k=draw.choice([3, 9, 40, 150, 300]))) for i in range(24)}
    queries = {f"q{i}": " ".join(draw.choices(WORDS, k=size)) for i, size in enumerate([1, 4, 12, 60, 200, 200])}
    return queries, documents, {query: draw.sample(sorted(documents), DEPTH) for query in queries}


@pytest.fixture(scope="module")
def collection(tmp_path_factory, texts):
    return write_collection(tmp_path_factory.mktemp("collection"), texts)


def write_collection(folder, texts):
    queries, documents, candidates = texts
    (folder / "docs.tsv").write_text("".join(f"{key}\t{text}\n" for key, text in documents.items()))
    (folder / "queries.tsv").write_text("".join(f"{key}\t{text}\n" for key, text in queries.items()))
    (folder / "qrels").write_text("".join(f"{query} 0 {candidates[query][0]} 1\n" for query in queries))
    rows = [f"{q} Q0 {d} {r} {50 - r} t\n" for q, docs in candidates.items() for r, d in enumerate(docs, 1)]
    (folder / "first.run").write_text("".join(rows))
    return folder


def by_command(collection, model, output):
    """What the command wrote: query -> document -> score."""
    words = ["rerank", str(model), "--run", str(collection / "first.run"), "--dataset", str(collection)]
    words += ["-o", str(output), "--cache", str(output.parent / "cache"), "--lab", str(output.parent / "lab")]
    result = CliRunner().invoke(app, [*words, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    scores: dict[str, dict[str, float]] = {}
    for line in output.read_text().splitlines():
        query, _, doc, _, score, _ = line.split()
        scores.setdefault(query, {})[doc] = float(score)
    return scores


def model_of(folder, layout):
    """A tiny finished cross-encoder in one of the two layouts that sentence-transformers reads."""
    if layout == "modules":
        return write_modules(folder, "BertModel", "cls")
    return write_encoder(folder / "model", "BertForSequenceClassification", num_labels=1)


@pytest.mark.parametrize("layout", ["classifier", "modules"])
@pytest.mark.parametrize("is_packed", [True, False])
def test_the_file_holds_the_scores_of_cross_encoder_predict(
    tmp_path, monkeypatch, collection, texts, layout, is_packed
):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    if not is_packed:
        monkeypatch.setattr(forward_pass, "packed_model", lambda model: None)
    queries, documents, candidates = texts
    model = model_of(tmp_path, layout)
    found = by_command(collection, model, tmp_path / "out.run")
    theirs = sentence_transformers.CrossEncoder(str(model), device="cpu")
    for query, docs in candidates.items():
        pairs = [(queries[query], documents[doc]) for doc in docs]
        expected = theirs.predict(pairs, activation_fn=torch.nn.Identity())
        assert found[query] == pytest.approx(dict(zip(docs, map(float, expected), strict=True)), abs=1e-5)
    assert len({score for row in found.values() for score in row.values()}) > 20


def test_shards_by_hand_are_resumed_and_merged_to_the_bytes_of_one_command(texts, tmp_path, monkeypatch):
    monkeypatch.setattr(rerank_dataset, "CHUNK", 1)
    monkeypatch.setattr(rerank_module, "CHUNK", 1)
    model = model_of(tmp_path, "head")
    collection = tmp_path / "data"
    collection.mkdir()
    write_collection(collection, texts)

    def command(output, *options):
        words = ["rerank", str(model), "--run", str(collection / "first.run"), "--dataset", str(collection)]
        words += ["-o", str(output), "--cache", str(output.parent / "cache"), "--lab", str(tmp_path / "lab")]
        result = CliRunner().invoke(app, [*words, "--device", "cpu", "--threads", "1", *options])
        if result.exception is not None:
            raise result.exception
        return result.output

    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    command(one / "out.run")
    output = other / "out.run"
    with refused(MissingError, "shards-missing") as caught:  # of no shard
        command(output, "--merge")
    assert "1/0" not in str(caught.value)
    assert "2/4, 3/4, 4/4" in command(output, "--shard", "1/4")
    for shard in (4, 2):
        command(output, "--shard", f"{shard}/4")
    with refused(MissingError, "shards-missing", "3/4"):
        command(output, "--merge")
    with refused(UsageError, "shards-differ", "shards"):
        command(output, "--shard", "1/3")
    with refused(UsageError, "shards-differ", "candidates"):
        command(output, "--shard", "1/4", "--depth", "3")
    with refused(UsageError, "options-conflict", "--shard"):
        command(output, "--shard", "3/4", "--merge")
    assert not output.exists()
    broken = next(output.with_name("out.run.shards").glob("chunk-000001/scores.json"))
    broken.write_bytes(b"{}")
    command(output, "--shard", "3/4")
    with refused(MissingError, "shards-missing", "2/4"):  # a damaged chunk counts as missing
        command(output, "--merge")
    command(output, "--shard", "2/4")
    command(output, "--merge")
    assert output.read_bytes() == (one / "out.run").read_bytes()
    assert not output.with_name("out.run.shards").exists()


@pytest.fixture
def shared(texts, tmp_path, monkeypatch):
    """A function that calls the command on the CPU in chunks of one query; further processes are forks of this one."""
    monkeypatch.setattr(rerank_dataset, "CHUNK", 1)
    monkeypatch.setattr(rerank_module, "CHUNK", 1)
    monkeypatch.setattr(shared_reranking, "START", "fork")
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # a fork cannot set them
    model = model_of(tmp_path, "head")
    collection = tmp_path / "data"
    collection.mkdir()
    write_collection(collection, texts)

    def command(output, *options):
        words = ["rerank", str(model), "--run", str(collection / "first.run"), "--dataset", str(collection)]
        words += ["-o", str(output), "--cache", str(tmp_path / f"cache-of-{output.name}"), "--lab", str(tmp_path)]
        result = CliRunner().invoke(app, [*words, "--device", "cpu", "--threads", "1", *options])
        if result.exception is not None:
            raise result.exception
        return result.output

    return command


def test_several_devices_share_the_queries_and_write_the_bytes_of_one(shared, tmp_path):
    one, two, of_shards = (tmp_path / name for name in ("one.run", "two.run", "shards.run"))
    shared(one)
    assert "6 of 6 queries" in shared(two, "--devices", "2")
    assert two.read_bytes() == one.read_bytes()
    assert not two.with_name("two.run.shards").exists()
    shared(of_shards, "--shard", "1/2")
    shared(of_shards, "--shard", "2/2", "--devices", "cpu,cpu")  # on one machine of two
    shared(of_shards, "--shard", "2/2", "--devices", "2")  # nothing is left to do
    shared(of_shards, "--merge")
    assert of_shards.read_bytes() == one.read_bytes()


def test_a_shared_reranking_that_was_stopped_goes_on_with_another_number_of_devices(shared, tmp_path, monkeypatch):
    real, scored, parent = rerank_module.Scorer.score_pairs, tmp_path / "scored", os.getpid()

    def score_pairs(self, pairs):
        with scored.open("a") as file:
            file.write("x")
        if scored.stat().st_size == 4 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, pairs)

    monkeypatch.setattr(rerank_module.Scorer, "score_pairs", score_pairs)
    shared(tmp_path / "one.run")
    size = scored.stat().st_size
    scored.write_text("")
    with refused(RunFailedError, "rank-lost", "cpu", "SIGKILL"):
        shared(tmp_path / "two.run", "--devices", "2")
    assert not (tmp_path / "two.run").exists()
    shared(tmp_path / "two.run", "--devices", "3")
    assert (tmp_path / "two.run").read_bytes() == (tmp_path / "one.run").read_bytes()
    assert size <= scored.stat().st_size <= size + 2  # those that were killed were scored twice


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--devices", "2", "--merge"], "options-conflict"),
        (["--devices", "2", "-o", "-"], "options-conflict"),
        (["--devices", "0,1"], "device-not-found"),
        (["--devices", "99"], "batch-not-divisible"),
    ],
)
def test_devices_that_cannot_share_a_reranking_are_refused(shared, tmp_path, options, code):
    with refused(UsageError, code):
        shared(tmp_path / "out.run", *options)


def test_the_error_of_a_process_is_that_of_the_command(shared, tmp_path, monkeypatch):
    def score_pairs(self, pairs):
        raise RunFailedError("the disk is full", where="/data", hint="free some", code="disk-full")

    monkeypatch.setattr(rerank_module.Scorer, "score_pairs", score_pairs)
    with refused(RunFailedError, "disk-full", "cpu", "/data"):
        shared(tmp_path / "out.run", "--devices", "2")


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "a/b", "-1/4", "1/0"])
def test_a_wrong_shard_is_refused(text):
    with refused(UsageError, "shard-wrong", text):
        parse_shard(text)


def test_metadata_is_asked_for_begins_the_file_and_changes_no_row(tmp_path, collection) -> None:
    model = model_of(tmp_path, "classifier")
    words = ["rerank", str(model), "--run", str(collection / "first.run"), "--dataset", str(collection)]
    words += ["--cache", str(tmp_path / "cache"), "--lab", str(tmp_path / "lab"), "--device", "cpu", "-o"]
    plain, headed = tmp_path / "plain.run", tmp_path / "headed.run"
    assert CliRunner().invoke(app, [*words, str(plain)]).exit_code == 0
    result = CliRunner().invoke(app, [*words, str(headed), "--metadata", "--team", "my team"])
    assert result.exit_code == 0, result.output
    lines = headed.read_text().splitlines(keepends=True)
    end = lines.index("# ir_metadata.end\n")
    assert lines[0] == "# ir_metadata.start\n"
    assert "#   team: my team\n" in lines[:end]
    assert "".join(lines[end + 1 :]) == plain.read_text()
    for more, where in ((["--team", "my team"], "--team"), (["--metadata", "--shard", "1/2"], "--metadata")):
        with refused(UsageError, "options-conflict", where):
            CliRunner().invoke(app, [*words, str(tmp_path / "x.run"), *more], catch_exceptions=False)


def test_weights_that_are_no_numbers_are_refused_with_their_folder(tmp_path, collection) -> None:
    from safetensors.torch import load_file, save_file

    weights = model_of(tmp_path, "classifier") / "model.safetensors"
    values = load_file(weights)
    values["bert.encoder.layer.1.output.dense.weight"][0] = float("nan")
    save_file(values, weights, metadata={"format": "pt"})
    words = ["rerank", str(weights.parent), "--run", str(collection / "first.run"), "--dataset", str(collection)]
    words += ["--cache", str(tmp_path / "cache"), "--lab", str(tmp_path / "lab"), "--device", "cpu"]
    with refused(RunFailedError, "score-not-finite", str(weights.parent)):
        CliRunner().invoke(app, [*words, "-o", str(tmp_path / "x.run")], catch_exceptions=False)
    assert not (tmp_path / "x.run").exists()
