"""`cerank data mine` and `cerank data negatives show` from the command line, with a first stage that needs no model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cerank.cli.typer_app import app
from cerank.errors import UsageError
from cerank.retrieval.mined_files import provenance_of
from cerank.trec.text_io import read_run
from tests.refusals import refused


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CERANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CERANK_LAB", str(tmp_path / "lab"))
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "queries.tsv").write_text("q1\twarm water\nq2\tcold air\n")
    (folder / "docs.tsv").write_text("".join(f"d{n}\t{word} {n}\n" for n, word in enumerate(["warm", "water", "cold"])))
    (folder / "qrels").write_text("q1 0 d0 1\nq2 0 d2 1\n")
    (folder / "runs").mkdir()
    (folder / "runs" / "given.run").write_text(
        "q1 Q0 d0 1 3 t\nq1 Q0 d1 2 2 t\nq1 Q0 d2 3 1 t\nq2 Q0 d1 1 9 t\nq2 Q0 d2 2 8 t\n"
    )


def cerank(*words: str) -> None:
    app(["data", *words], standalone_mode=False)


def test_a_mined_file_has_its_provenance_and_is_shown_without_the_positives(capsys: pytest.CaptureFixture[str]) -> None:
    cerank("mine", "./set", "--by", "given", "--into", "m.run", "--depth", "2", "--json")
    rows = {row["what"]: row["value"] for row in json.loads(capsys.readouterr().out)}
    assert rows["mined by"].endswith("given")
    assert read_run(Path("m.run")).ranking["q1"] == ("d0", "d1")
    mined = provenance_of(Path("m.run").resolve())
    assert mined is not None
    assert (mined.queries, mined.candidates, mined.depth, mined.dataset) == (2, 4, 2, "./set")
    cerank("negatives", "show", "m.run", "--json")
    shown = json.loads(capsys.readouterr().out)
    assert {(row["query"], row["positive"], row["negative"], row["rank"]) for row in shown} == {
        ("q1", "d0", "d1", 2),
        ("q2", "d2", "d1", 1),
    }
    assert {row["negative_text"] for row in shown} == {"water 1"}


def test_what_cannot_be_mined_or_shown_is_refused(tmp_path: Path) -> None:
    with refused(UsageError, "folder-not-found"):
        cerank("mine", "./set", "--by", "given", "--into", "no/m.run")
    cerank("mine", "./set", "--by", "given", "--into", "m.run")
    with refused(UsageError, "file-exists"):
        cerank("mine", "./set", "--by", "given", "--into", "m.run")
    cerank("mine", "./set", "--by", "given", "--into", "m.run", "--replace")
    (tmp_path / "other.run").write_text("q1 Q0 d1 1 3 t\n")
    with refused(UsageError, "no-provenance"):
        cerank("negatives", "show", "other.run")
    cerank("negatives", "show", "other.run", "--dataset", "./set")
    with pytest.raises(UsageError):
        cerank("negatives", "show", "m.run", "--dropped")


def test_a_bi_encoder_of_other_modules_is_refused(tmp_path: Path) -> None:
    from cerank.inference.bi_encoders import is_bi_encoder, read_bi_encoder

    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    names = ["Transformer", "Pooling"]

    def write(*more: str) -> None:
        kinds = [f"sentence_transformers.models.{name}" for name in (*names, *more)]
        modules = [{"idx": place, "type": kind, "path": ""} for place, kind in enumerate(kinds)]
        modules[1]["path"] = "1_Pooling"
        (folder / "modules.json").write_text(json.dumps(modules))

    write("Dense")
    assert is_bi_encoder(folder)
    with refused(UsageError, "bi-encoder-modules", "Dense"):
        read_bi_encoder(folder)
    write()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with refused(UsageError, "bi-encoder-modules"):
        read_bi_encoder(folder)
    pooling = {"pooling_mode_mean_tokens": True, "include_prompt": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "model.safetensors").write_bytes(b"")
    assert read_bi_encoder(folder).query_prefix == ""
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"query": "Find: "}}')
    with refused(UsageError, "bi-encoder-modules", "include_prompt"):
        read_bi_encoder(folder)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / "config.json").write_text('{"max_position_embeddings": 64}')
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 100}')
    assert read_bi_encoder(folder).max_length == 64
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 32}')
    assert read_bi_encoder(folder).max_length == 32
    (folder / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    with refused(UsageError, "bi-encoder-modules", "do_lower_case"):
        read_bi_encoder(folder)
    (folder / "modules.json").write_text("{}")
    with refused(UsageError, "bi-encoder-modules"):
        read_bi_encoder(folder)
