from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cerank.cli.typer_app import app
from cerank.errors import ExitCode, FormatError, MissingError, UsageError
from cerank.importing.format_catalog import FORMATS
from cerank.importing.published_files import PUBLISHED_FILES
from tests.refusals import refused

ROW = {"query": "q", "pos": ["a"], "neg": ["b", "b"], "pos_scores": [2], "neg_scores": [1, 1]}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CERANK_CACHE", str(tmp_path / "cache"))


def cerank(*words: str) -> None:
    app(["data", *words], standalone_mode=False)


def test_an_import_reports_what_came_and_says_how_to_look_at_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ROW) + "\n")
    cerank("import", "flag-embedding", "a.jsonl", "--into", "mine", "--name", "bge", "--depth", "1", "--json")
    shown = capsys.readouterr()
    assert {row["what"]: row["number"] for row in json.loads(shown.out)} == {
        "records read": 1,
        "queries": 1,
        "documents": 2,
        "judgments": 1,
        "rows of run negatives": 1,
        "rows of run bge": 1,
        "candidates beyond the depth, dropped": 1,
        "texts that come again in their list, dropped": 1,
    }
    assert "`cerank datasets ./mine`" in shown.err
    with refused(UsageError, "file-exists"):
        cerank("import", "flag-embedding", "a.jsonl", "--into", "mine")


def test_a_recipe_can_learn_from_what_was_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ROW) + "\n")
    cerank("import", "flag-embedding", "a.jsonl", "--into", "mine")
    from cerank.datasets.open_datasets import open_dataset
    from cerank.retrieval.teachers import read_teacher

    dataset = open_dataset("./mine", tmp_path)
    assert len(read_teacher("teacher", dataset).ranking[next(iter(dataset.queries))]) == 2


def test_a_mistake_in_a_file_names_its_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ROW) + "\n{}\n")
    with refused(FormatError, "invalid-record", "a.jsonl:2"):
        cerank("import", "flag-embedding", "a.jsonl", "--into", "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl"]


def test_every_format_and_published_file_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    cerank("formats", "--json")
    found = json.loads(capsys.readouterr().out)
    assert [row["format"] for row in found["formats"]] == list(FORMATS)
    assert [row["name"] for row in found["files"]] == list(PUBLISHED_FILES)
    by_hand = {row["name"] for row in found["files"] if row["fetch"].startswith("by hand")}
    assert {"rankgpt-100k", "rankgpt-100k-permutations", "sbert-scores"} <= by_hand
    cerank("formats", "rank-distillm", "--json")
    found = json.loads(capsys.readouterr().out)
    assert {row["format"] for row in found["files"]} == {"rank-distillm"}
    with refused(UsageError, "not-registered", "rankgpt"):
        cerank("formats", "rank-gpt")


def test_a_person_is_shown_few_columns_and_a_format_s_files_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    cerank("formats", "--format", "table")
    shown = capsys.readouterr().out
    assert "msmarco-text-triples" in shown
    assert "c13bf99ff23ca691105ad12eab837f84" not in shown
    cerank("formats", "msmarco-text-triples", "--format", "table")
    shown = capsys.readouterr().out
    assert "c13bf99ff23ca691105ad12eab837f84" in shown
    assert "triples.train.small.tar.gz" in shown
    cerank("formats", "tirex", "--format", "table")
    assert "://" not in capsys.readouterr().out


def test_the_help_of_import_names_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    cerank("import", "--help")
    words = capsys.readouterr().out.replace(",", " ").replace(".", " ").split()
    assert [name for name in FORMATS if name not in words] == []


def test_what_only_a_person_can_fetch_says_so_at_once(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        cerank("fetch", "rankgpt-100k")
    assert caught.value.exit_code == ExitCode.MISSING
    assert f"{tmp_path}/cache/downloads/rankgpt-100k/marco-train-100k.jsonl" in caught.value.hint
    with refused(MissingError, "download-by-hand"):
        cerank("fetch", "sbert-scores")


def test_a_file_placed_by_hand_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "there" / "rankgpt-100k-permutations" / "marco-train-100k-gpt3.5.json"
    path.parent.mkdir(parents=True)
    path.write_text("[]")
    cerank("fetch", "rankgpt-100k-permutations", "--into", "there")
    shown = capsys.readouterr()
    assert shown.out == "there/rankgpt-100k-permutations/marco-train-100k-gpt3.5.json\n"
    assert "not verified" in shown.err
    assert "cerank data import rankgpt" in shown.err


def test_the_command_line_stays_light() -> None:
    program = (
        "import sys\n"
        "try:\n    from cerank.cli.typer_app import app; app(['data', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'transformers', 'polars', 'numpy', 'ir_datasets', 'http.client') "
        "if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
