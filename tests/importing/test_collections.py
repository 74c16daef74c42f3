"""Folders that take from another dataset what they do not hold."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cerank.datasets.local_folders import collection_toml
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import FormatError, MissingError, UsageError
from cerank.importing.import_files import ImportOptions, import_files
from tests.refusals import refused


@pytest.fixture
def folder(tmp_path: Path, collection: Path) -> Path:
    path = tmp_path / "mine"
    (path / "runs").mkdir(parents=True)
    (path / "collection.toml").write_bytes(collection_toml(str(collection)))
    (path / "runs" / "mine.run").write_text("1 Q0 3 1 2 t\n")
    return path


def test_texts_and_judgments_come_from_the_other_dataset(folder: Path, tmp_path: Path) -> None:
    dataset = open_dataset(str(folder), tmp_path)
    assert dataset.queries == {"1": "query 1", "2": "query 2", "3": "query 3"}
    assert dataset.qrels["3"] == {"12": 1}
    assert dataset.documents.text("3") == "passage 3"
    assert dataset.runs == ("mine",)


def test_named_queries_are_taken_alone_and_in_their_order(folder: Path, tmp_path: Path) -> None:
    whole = open_dataset(str(folder), tmp_path).fingerprint()
    (folder / "query-ids.txt").write_text("3\n1\n")
    dataset = open_dataset(str(folder), tmp_path)
    assert list(dataset.queries.items()) == [("3", "query 3"), ("1", "query 1")]
    assert set(dataset.qrels) == {"1", "3"}
    assert dataset.fingerprint() != whole
    (folder / "query-ids.txt").write_text("3\n99\n98\n")
    with refused(FormatError, "queries-do-not-match", 99, 2, 3):
        open_dataset(str(folder), tmp_path)


def test_what_the_folder_has_goes_before_the_other_s(folder: Path, tmp_path: Path) -> None:
    (folder / "qrels").write_text("1 0 3 2\n")
    dataset = open_dataset(str(folder), tmp_path)
    assert dataset.qrels == {"1": {"3": 2}}
    assert list(dataset.queries) == ["1"]
    (folder / "docs.tsv").write_text("3\tmy own\n")
    (folder / "queries.tsv").write_text("1\tmy query\n")
    dataset = open_dataset(str(folder), tmp_path)
    assert dataset.documents.text("3") == "my own"
    assert dataset.queries == {"1": "my query"}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "dataset-declaration"),
        ('folder = "a"\nir_datasets = "b"\n', "dataset-declaration"),
        ('fodler = "a"\n', "dataset-declaration fodler"),
        ("folder = 1\n", "dataset-declaration folder int"),
        ("folder = \n", "not-toml"),
    ],
)
def test_a_malformed_reference_is_refused(folder: Path, tmp_path: Path, text: str, what: str) -> None:
    (folder / "collection.toml").write_text(text)
    with refused(FormatError, *what.split()):
        open_dataset(str(folder), tmp_path)


def test_references_do_not_chain_so_that_none_can_turn_in_a_circle(folder: Path, tmp_path: Path) -> None:
    (folder / "collection.toml").write_text('folder = "."\n')
    with refused(FormatError, "dataset-reference-nested"):
        open_dataset(str(folder), tmp_path)
    (folder / "collection.toml").write_text('folder = "../no-such"\n')
    with pytest.raises(MissingError):
        open_dataset(str(folder), tmp_path)
    with pytest.raises(UsageError):
        collection_toml("./no-such-folder")


def test_an_import_may_refer_to_a_collection_of_ir_datasets(shared: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(shared / "ir-datasets-home", home)
    for path in (home, *home.rglob("*")):  # the copy of folders that may only be read can be read only, too
        path.chmod(0o755 if path.is_dir() else 0o644)
    (tmp_path / "a.tsv").write_text("1\t10\t3\n2\t11\t4\n")
    import_files("msmarco-id-triples", [tmp_path / "a.tsv"], tmp_path / "out", ImportOptions(collection="vaswani"))
    program = (
        "import sys; from pathlib import Path; from cerank.datasets.open_datasets import open_dataset\n"
        "found = open_dataset(sys.argv[1], Path(sys.argv[2]))\n"
        "print(sorted(found.queries), found.qrels, len(found.documents.text('3')) > 20)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "out"), str(tmp_path / "cache")],
        env={"IR_DATASETS_HOME": str(home), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "['1', '2'] {'1': {'10': 1}, '2': {'11': 1}} True\n", done.stderr
