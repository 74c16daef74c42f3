"""The documents of a large file, on disk, are those that a small file's are in memory."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerank.datasets.local_folders import open_folder
from cerank.datasets.mapped_documents import MappedDocuments
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import FormatError, MissingError
from cerank.files.id_index import IdIndex, IdIndexBuilder
from cerank.trec import open_run
from tests.refusals import refused


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_run, "LARGE", 1)
    monkeypatch.setattr(open_run, "LARGE_PACKED", 1)


def _folder(folder: Path, docs: bytes, name: str = "docs.tsv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(docs)
    (folder / "queries.tsv").write_text("q\tcats\n")
    return folder


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("ids", [[str(number) for number in range(50)], ["b", "a", "é", "10", "01"], ["7"]])
def test_mapped_documents_equal_those_in_memory(tmp_path: Path, ids: list[str], is_packed: bool) -> None:
    draw = random.Random(1)
    texts = {key: " ".join(draw.choices(["a b", "naïve  café", "x\\t", ""], k=3)) for key in ids}
    content = "".join(f"{key}\t{text}\n" for key, text in texts.items()).encode()
    name = "docs.tsv.gz" if is_packed else "docs.tsv"
    folder = _folder(tmp_path / "set", gzip.compress(content) if is_packed else content, name)
    small = open_folder(folder, "", "set")
    large = open_dataset(str(folder), tmp_path / "cache")
    assert isinstance(large.documents, MappedDocuments)
    assert not isinstance(small.documents, MappedDocuments)
    assert list(large.documents) == list(small.documents)
    assert large.fingerprint() == small.fingerprint()
    assert large.documents.fingerprint() == small.documents.fingerprint()
    asked = draw.sample(ids, len(ids)) + ids[:1]
    assert large.documents.texts(asked) == small.documents.texts(asked)
    assert len(large.documents) == len(ids)
    for absent in ("nowhere", "", "99", 7):
        assert absent not in large.documents
    with refused(MissingError, "document-not-found", "nowhere"):
        large.documents.texts([ids[0], "nowhere"])


def test_real_folders_are_the_same_either_way(shared: Path, tmp_path: Path) -> None:
    for name in ("med", "cranfield"):
        large = open_dataset(str(shared / name), tmp_path)
        assert dict(large.documents) == dict(open_folder(shared / name, "", name).documents)


@pytest.mark.parametrize(
    ("docs", "where", "what"),
    [
        (b"a\tx\nb\ty\na\tz\n", ":3", "id-twice"),
        (b"a\tx\nb y\n", ":2", "column-count"),
        (b"a b\tx\n", ":1", "id-with-white-space"),
        (b"", "", "no-documents"),
        (b"a\tx\nb\t\xff\n", ":2", "not-utf8"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line_and_leaves_nothing(
    tmp_path: Path, docs: bytes, where: str, what: str
) -> None:
    folder = _folder(tmp_path / "set", docs)
    for open_it in (lambda: open_folder(folder, "", "set"), lambda: open_dataset(str(folder), tmp_path / "cache")):
        with refused(FormatError, *what.split()) as caught:
            open_it()
        assert caught.value.where == f"{folder / 'docs.tsv'}{where}"
    left = (tmp_path / "cache" / "documents").iterdir() if (tmp_path / "cache").exists() else ()
    assert {path.suffix for path in left} <= {".lock"}


def test_a_changed_file_is_read_anew_and_a_damaged_map_is_made_again(tmp_path: Path) -> None:
    folder, cache = _folder(tmp_path / "set", b"a\tx\n"), tmp_path / "cache"
    open_dataset(str(folder), cache)
    (made,) = (path for path in (cache / "documents").iterdir() if path.is_dir())
    (made / "texts.bin").write_bytes(b"a")
    assert open_dataset(str(folder), cache).documents.text("a") == "x"
    (folder / "docs.tsv").write_bytes(b"a\tlonger\n")
    assert open_dataset(str(folder), cache).documents.text("a") == "longer"


@settings(max_examples=50)
@given(st.lists(st.text("0123456789ab", min_size=1, max_size=4), unique=True, min_size=1), st.text("0123456789ab"))
def test_keys_find_their_rows_and_no_others(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str], other: str
) -> None:
    folder = tmp_path_factory.mktemp("keys")
    collected = IdIndexBuilder()
    collected.add(keys[: len(keys) // 2])
    collected.add(keys[len(keys) // 2 :])
    found = IdIndex(folder, len(keys), is_numbered=collected.write(folder))
    assert collected.find_duplicate() is None
    assert [found.row(key) for key in [*keys, other]] == found.rows([*keys, other]).tolist()
    assert found.rows(keys).tolist() == list(range(len(keys)))
    assert found.rows([other]).tolist() == [keys.index(other) if other in keys else -1]
    collected.add(keys[:1])
    assert collected.find_duplicate() == (0, len(keys))


def test_an_index_that_did_not_fit_into_memory_is_the_same_one(tmp_path: Path) -> None:
    keys = [f"id{number * 7919 % 3001}" for number in range(3001)]
    folders = [tmp_path / "whole", tmp_path / "spilled"]
    for folder, builder in zip(
        folders, (IdIndexBuilder(), IdIndexBuilder(tmp_path / "waiting", most_waiting=400)), strict=True
    ):
        folder.mkdir()
        for start in range(0, len(keys), 100):
            builder.add(keys[start : start + 100])
        assert len(builder) == 3001
        assert builder.find_duplicate() is None
        assert not builder.write(folder)
    for name in ("hashes.bin", "rows.bin"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert not (tmp_path / "waiting").exists()
    builder = IdIndexBuilder(tmp_path / "waiting", most_waiting=2)
    for key in ("a", "b", "c", "b", "e"):
        builder.add([key])
    assert builder.find_duplicate() == (1, 3)


def test_a_small_folder_imports_no_numpy(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "set", b"a\tx\n")
    look = "import sys; from pathlib import Path; from cerank.datasets.open_datasets import open_dataset; "
    look += "open_dataset(sys.argv[1], Path(sys.argv[2])); print(*sys.modules)"
    words = [sys.executable, "-c", look, str(folder), str(tmp_path / "cache")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert not {"numpy", "polars", "ir_datasets"} & set(done.stdout.split())
