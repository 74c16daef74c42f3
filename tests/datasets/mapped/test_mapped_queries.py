"""Queries and qrels of large files are read from the disk, and are those that small files give."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from pathlib import Path

import polars
import pytest

from cerank.core.row_sets import KnownItems
from cerank.datasets import local_folders
from cerank.datasets.dataset import Dataset, StoredQrels, StoredQueries, part_of
from cerank.datasets.local_folders import open_folder
from cerank.datasets.mapped import grouped_qrels
from cerank.datasets.mapped_documents import MappedDocuments
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import FormatError, UsageError
from cerank.files import disk, file_cache
from cerank.retrieval import first_stage
from cerank.trec import open_run, query_places
from tests.refusals import refused
from tests.work import steps_of


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (local_folders, "LARGE_QUERIES"),
        (local_folders, "LARGE_QUERIES_PACKED"),
        (open_run, "LARGE"),
        (open_run, "LARGE_PACKED"),
        (query_places, "MANY_QUERIES"),
    ):
        monkeypatch.setattr(module, name, 1)


def folder_of(folder: Path, queries: int = 60, *, kind: str = "tsv", scattered: bool = False) -> Path:
    draw = random.Random(2)
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    ids = [f"q{number}" for number in draw.sample(range(1000), queries)]
    texts = {query: f"what is {draw.choice(['naïve  café', 'a cat', 'an owl'])} {query}" for query in ids}
    (folder / "docs.tsv").write_text("".join(f"d{number}\ttext {number}\n" for number in range(20)))
    if kind == "jsonl":
        rows = [json.dumps({"query_id": query, "text": text}) + "\n" for query, text in texts.items()]
    else:
        rows = [f"{query}\t{text}\n" for query, text in texts.items()]
    content = "".join(rows).encode()
    name = f"queries.{kind.removesuffix('.gz')}" + (".gz" if kind.endswith(".gz") else "")
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    judged = [query for query in ids if draw.random() < 0.8]
    lines = [f"{query} 0 d{doc} {draw.randrange(3)}\n" for query in judged for doc in draw.sample(range(20), 3)]
    lines += lines[:2]  # the same grade twice counts once
    if scattered:
        draw.shuffle(lines)
    (folder / "qrels").write_text("".join(lines))
    run = [
        f"{query} Q0 d{doc} {rank} {50 - rank} x\n"
        for query in [*ids[:-3], "elsewhere"]
        for rank, doc in enumerate(draw.sample(range(20), 6), 1)
    ]
    (folder / "runs" / "first.run").write_text("".join(run))
    return folder


def both(folder: Path, cache: Path) -> tuple[Dataset, Dataset]:
    return open_folder(folder, "", "set"), open_dataset(str(folder), cache)


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("kind", ["tsv", "jsonl", "tsv.gz"])
def test_large_files_give_the_queries_and_judgments_of_small_ones(tmp_path: Path, kind: str, scattered: bool) -> None:
    folder = folder_of(tmp_path / "set", kind=kind, scattered=scattered)
    small, large = both(folder, tmp_path / "cache")
    assert isinstance(large.queries, StoredQueries)
    assert isinstance(large.qrels, StoredQrels)
    assert isinstance(small.queries, dict)
    assert list(large.queries.items()) == list(small.queries.items())
    assert list(large.qrels.items()) == list(small.qrels.items())
    assert list(map(list, large.qrels.values())) == list(map(list, small.qrels.values()))
    assert (len(large.queries), len(large.qrels)) == (len(small.queries), len(small.qrels))
    assert large.fingerprint() == small.fingerprint()
    ids = large.query_ids
    assert isinstance(ids, KnownItems)
    assert list(ids) == list(small.queries)
    assert ids[7] in ids
    unjudged = next(query for query in open_folder(folder, "", "x").run("first").ranking if query not in small.queries)
    for absent in ("nowhere", unjudged, 7):
        assert absent not in large.queries
        assert absent not in ids
        assert large.qrels.get(str(absent)) is None


def test_judgments_in_many_parts_are_those_in_one_and_the_first_second_grade_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouped_qrels, "BUCKET", 64)
    folder = folder_of(tmp_path / "set", scattered=True)
    small, large = both(folder, tmp_path / "cache")
    assert [(query, list(row.items())) for query, row in large.qrels.items()] == [
        (query, list(row.items())) for query, row in small.qrels.items()
    ]
    lines = (folder / "qrels").read_text().splitlines(keepends=True)
    others = [f"{line.rsplit(' ', 1)[0]} 9\n" for line in lines[:30]]
    (folder / "qrels").write_text("".join([*lines, *reversed(others)]))
    for cache in (None, tmp_path / "cache"):
        with refused(FormatError, "grade-twice", f"qrels:{len(lines) + 1}"):
            open_folder(folder, "", "set", cache=cache)


@pytest.mark.parametrize("part", ["[:60%]", "[60%:80%]", "[80%:]", "[:7]", "[:100%]"])
def test_a_part_of_a_large_dataset_is_the_same_part(tmp_path: Path, part: str) -> None:
    folder = folder_of(tmp_path / "set")
    large = open_dataset(f"{folder}{part}", tmp_path / "cache")
    small = part_of(open_folder(folder, "", "set"), part)
    assert isinstance(large.queries, StoredQueries)
    assert list(large.queries.items()) == list(small.queries.items())
    assert list(large.qrels.items()) == list(small.qrels.items())
    again = open_dataset(f"{folder}{part}", tmp_path / "cache")
    assert list(again.queries.items()) == list(small.queries.items())
    for record in (tmp_path / "cache").rglob("*.bin"):
        if record.parent.name in {"parts-of-queries", "judged-queries"}:
            record.write_bytes(b"half of it")
    assert list(open_dataset(f"{folder}{part}", tmp_path / "cache").queries) == list(small.queries)
    with refused(UsageError, "query-range-empty"):
        open_dataset(f"{folder}[3:3]", tmp_path / "cache")


def test_a_dataset_that_was_opened_before_is_opened_without_going_through_its_queries(tmp_path: Path) -> None:
    steps = []
    for queries in (400, 900):
        name = f"{folder_of(tmp_path / str(queries), queries)}[:50%]"
        open_dataset(name, tmp_path / "cache")
        steps.append(steps_of(lambda name=name: open_dataset(name, tmp_path / "cache"))[1])  # type: ignore[misc]
    assert abs(steps[1] - steps[0]) < 4 * 500  # a few lines of Python for each of the further queries


def same(large: Dataset, small: Dataset) -> None:
    assert isinstance(large.queries, StoredQueries)
    assert isinstance(small.queries, dict)
    assert list(large.queries.items()) == list(small.queries.items())
    assert [(query, list(row.items())) for query, row in large.qrels.items()] == [
        (query, list(row.items())) for query, row in small.qrels.items()
    ]
    assert (large.fingerprint(), large.notes) == (small.fingerprint(), small.notes)


@pytest.mark.parametrize("topic", [["title"], ["title", "description"]], ids=len)
def test_topics_of_a_large_file_are_those_of_a_small_one(tmp_path: Path, topic: list[str]) -> None:
    folder = folder_of(tmp_path / "set")
    rows = (line.split("\t") for line in (folder / "queries.tsv").read_text().splitlines())
    texts = [f"<top>\n<num> Number: {query}\n<title> {text}\n<desc> about it\n</top>\n" for query, text in rows]
    (folder / "topics.txt").write_text("".join(texts))
    (folder / "queries.tsv").unlink()
    same(*reversed(both(folder, tmp_path / "cache")))
    (folder / "collection.toml").write_text(f"topic = {json.dumps(topic)}\n")
    same(*reversed(both(folder, tmp_path / "cache")))  # the same file, read in another way


def test_topics_without_text_are_told_by_the_parts_that_make_the_query(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set")
    rows = [line.split("\t") for line in (folder / "queries.tsv").read_text().splitlines()]
    parts = [("title", "desc") if at % 2 else ("desc", "title") for at in range(len(rows))]
    texts = [
        f"<top>\n<num> Number: {query}\n<{full}> {text}\n<{empty}> \n</top>\n"
        for (query, text), (full, empty) in zip(rows, parts, strict=True)
    ]
    (folder / "topics.txt").write_text("".join(texts))
    (folder / "queries.tsv").unlink()
    fingerprints = set()
    for topic in (["title"], ["description"], ["title", "description"]):
        (folder / "collection.toml").write_text(f'topic = {json.dumps(topic)}\nwithout_text = "skip"\n')
        small, large = both(folder, tmp_path / "cache")
        same(large, small)
        fingerprints.add(small.fingerprint())
        part = open_dataset(f"{folder}[:40%]", tmp_path / "cache")
        assert list(part.queries.items()) == list(part_of(small, "[:40%]").queries.items())
    assert len(fingerprints) == 3  # the same file, and other queries


@pytest.mark.parametrize("qrels", [True, False])
def test_queries_without_text_are_left_out_of_a_large_file_as_of_a_small_one(tmp_path: Path, qrels: bool) -> None:
    folder = folder_of(tmp_path / "set", scattered=True)
    lines = (folder / "queries.tsv").read_text().splitlines()
    empty = [line.partition("\t")[0] + "\t " if at % 7 == 0 else line for at, line in enumerate(lines)]
    (folder / "queries.tsv").write_text("\n".join(empty) + "\n")
    with (folder / "qrels").open("a") as file:
        file.write("elsewhere 0 d1 1\nelsewhere 0 d2 1\nnowhere 0 d1 1\n")
    if not qrels:
        (folder / "qrels").unlink()
    (folder / "collection.toml").write_text('without_text = "skip"\n')
    for _ in range(2):
        small, large = both(folder, tmp_path / "cache")
        same(large, small)
        assert f"{len(empty[::7]) + 2 * qrels} queries" in large.notes[0]
    (folder / "collection.toml").unlink()
    with refused(FormatError, "text-missing", "queries.tsv:1"):  # read before in another way
        open_dataset(str(folder), tmp_path / "cache")
    (folder / "queries.tsv").write_text("".join(line.partition("\t")[0] + "\t\n" for line in lines))
    (folder / "collection.toml").write_text('without_text = "skip"\n')
    for cache in (None, tmp_path / "cache"):
        with refused(FormatError, "no-queries", "queries.tsv"):
            open_folder(folder, "", "set", cache=cache)


@pytest.mark.parametrize("own", ["nothing", "queries", "qrels"])
def test_what_another_large_dataset_lends_is_what_a_small_one_lends(tmp_path: Path, own: str) -> None:
    other, folder = folder_of(tmp_path / "other"), tmp_path / "set"
    folder.mkdir()
    (folder / "collection.toml").write_text(f"folder = {json.dumps(str(other))}\n")
    if own == "queries":
        rows = (other / "queries.tsv").read_text().splitlines()[::2]
        (folder / "queries.tsv").write_text("\n".join([*rows, "mine\tof my own"]) + "\n")
    if own == "qrels":
        (folder / "qrels").write_text("".join((other / "qrels").read_text().splitlines(keepends=True)[::5]))
    small, large = both(folder, tmp_path / "cache")
    if own != "qrels":
        same(large, small)
    assert list(large.queries.items()) == list(small.queries.items())
    assert dict(large.qrels) == dict(small.qrels)
    assert large.fingerprint() == small.fingerprint()


def test_a_large_dataset_is_divided_by_a_field_of_its_queries_as_a_small_one_is(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", kind="jsonl")
    rows = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    dated = [json.dumps({**row, "date": f"20{at % 9 + 10}-01-01"}) + "\n" for at, row in enumerate(rows)]
    (folder / "queries.jsonl").write_text("".join(dated))
    large = open_dataset(f"{folder}[:50% by date]", tmp_path / "cache")
    small = open_folder(folder, "", "set")
    dates = {json.loads(line)["query_id"]: json.loads(line)["date"] for line in dated}
    taken = [dates[query] for query in small.queries if query in large.queries]
    left = [dates[query] for query in small.queries if query not in large.queries]
    assert taken
    assert left
    assert max(taken) <= min(left)


def test_candidates_of_stored_queries_are_those_of_queries_in_memory(tmp_path: Path) -> None:
    small, large = both(folder_of(tmp_path / "set"), tmp_path / "cache")
    here = first_stage.candidates(small, "first", 4, tmp_path / "cache")
    there = first_stage.candidates(large, "first", 4, tmp_path / "cache")
    assert list(there) == list(here)
    assert {query: (there[query], there.scores(query)) for query in there} == {
        query: (here[query], here.scores(query)) for query in here
    }
    assert len(there) == len(here)
    assert there
    assert "elsewhere" not in there
    assert list(open_dataset(str(tmp_path / "set"), tmp_path / "cache").run("first").ranking)[-1] == "elsewhere"


@pytest.mark.parametrize(
    ("queries", "qrels", "code", "named"),
    [
        (b"q1\tx\nq1\ty\n", b"q1 0 d1 1\n", "id-twice", "queries.tsv:2"),
        (b"q1\tx\nq2\t \n", b"q1 0 d1 1\n", "text-missing", "queries.tsv:2"),
        (b"q1\tx\n", b"q1 0 d1 1\nq2 0 d1 1\n", "text-missing", "q2"),
        (b"q1\tx\n", b"q1 0 d1 1\nq1 0 d2 1\nq1 0 d1 2\n", "grade-twice", "qrels:3"),
        (b"q1\tx\n", b"q1 0 d1\n", "column-count", "qrels:1"),
    ],
)
def test_a_malformed_large_file_is_refused_and_leaves_nothing(
    tmp_path: Path, queries: bytes, qrels: bytes, code: str, named: str
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "docs.tsv").write_bytes(b"d1\ta\nd2\tb\n")
    (folder / "queries.tsv").write_bytes(queries)
    (folder / "qrels").write_bytes(qrels)
    with refused(FormatError, code, named):
        open_dataset(str(folder), tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.part"))
    assert not list((tmp_path / "cache").rglob("grouping-*"))


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    folder, cache = folder_of(tmp_path / "set"), tmp_path / "cache"
    qrels = folder / "qrels"
    name = file_cache.cache_name(qrels)
    left = [cache / "qrels" / f"{name}.part", cache / "qrels" / f"grouping-{name}"]
    for part in left:
        part.mkdir(parents=True)
        (part / "3.queries").write_bytes(b"half of a ro")
    small, large = both(folder, cache)
    assert list(large.qrels.items()) == list(small.qrels.items())
    ids = list(large.run("first").ranking)
    (index,) = cache.rglob("query-index")
    half = index.rename(index.with_name("query-index.part"))
    (half / "offsets.bin").write_bytes(b"123")
    places = query_places.open_places(index.parent, len(ids))
    assert index.is_dir()
    assert [places[query] for query in ids] == list(range(len(ids)))
    assert not [path for path in cache.rglob("*") if path.name.endswith(".part") or path.name.startswith("grouping-")]


def test_a_copy_of_the_same_bytes_elsewhere_leaves_one_that_is_in_use_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, cache = folder_of(tmp_path / "set"), tmp_path / "cache"
    shutil.copytree(folder, tmp_path / "other")
    open_dataset(str(folder), cache)
    removed = disk.remove_tree

    def remove_tree(path: Path) -> None:
        if path.parent.name == "queries" and path.suffix != ".part" and any(path.rglob("rows.bin")):
            assert path.name.startswith("."), "a process that has opened it may still open its index"
        removed(path)

    monkeypatch.setattr(disk, "remove_tree", remove_tree)
    other = open_dataset(str(tmp_path / "other"), cache)
    assert list(other.queries.items()) == list(open_dataset(str(folder), cache).queries.items())
    assert not list(cache.rglob(".*"))


def test_parts_of_topics_that_lack_the_text_are_others_for_other_parts(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set")
    ids = [line.partition("\t")[0] for line in (folder / "queries.tsv").read_text().splitlines()]
    parts = [("a cat", "") if at % 2 else ("", "about it") for at in range(len(ids))]
    texts = [f"<top>\n<num> Number: {query}\n<title> {title}\n<desc> {about}\n</top>\n"
             for query, (title, about) in zip(ids, parts, strict=True)]  # fmt: skip
    (folder / "topics.txt").write_text("".join(texts))
    (folder / "queries.tsv").unlink()
    fingerprints = set()
    for topic in (["title"], ["description"], ["title", "description"]):
        (folder / "collection.toml").write_text(f'topic = {json.dumps(topic)}\nwithout_text = "skip"\n')
        for _ in range(2):
            small, large = both(folder, tmp_path / "cache")
            same(large, small)
        fingerprints.add(large.fingerprint())
    assert len(fingerprints) == 3


def test_where_no_judged_query_has_a_text_all_queries_are_taken_as_of_a_small_file(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set")
    lines = [f"{query}\t{' ' if query == 'q1' else 'a cat'}\n" for query in ("q1", "q2", "q3")]
    (folder / "queries.tsv").write_text("".join(lines))
    (folder / "qrels").write_text("q1 0 d1 1\n")
    (folder / "collection.toml").write_text('without_text = "skip"\n')
    small, large = both(folder, tmp_path / "cache")
    same(large, small)
    assert list(large.queries) == ["q2", "q3"]


@pytest.mark.parametrize("rows", ["q1\t \nq1\ta cat\n", "q1\ta cat\nq1\t \n", "q2\tan owl\nq1\t \nq1\t \n"])
def test_a_query_that_appears_twice_once_without_text_is_refused_in_any_file(tmp_path: Path, rows: str) -> None:
    folder = folder_of(tmp_path / "set")
    (folder / "queries.tsv").write_text(rows)
    (folder / "collection.toml").write_text('without_text = "skip"\n')
    for cache in (None, tmp_path / "cache"):
        with pytest.raises(FormatError) as raised:
            open_folder(folder, "", "set", cache=cache)
        assert "q1" in raised.value.what


def as_mirror(folder: Path, parts: int) -> Path:
    """Return a folder with the same queries and documents in several parquet files each, as mirrors on the hub."""
    mirror = folder.with_name(f"{folder.name}-mirror")
    shutil.copytree(folder, mirror)
    for name, where in (("docs.tsv", "corpus"), ("queries.tsv", "queries")):
        rows = [line.split("\t") for line in (mirror / name).read_text(encoding="utf8").splitlines()]
        (mirror / name).unlink()
        (mirror / where).mkdir()
        for part in range(parts):
            own = rows[part * len(rows) // parts : (part + 1) * len(rows) // parts]
            frame = polars.DataFrame({"_id": [key for key, _ in own], "text": [text for _, text in own]})
            frame.write_parquet(mirror / where / f"{where}-{part:05}-of-{parts:05}.parquet")
    return mirror


def written(cache: Path) -> dict[Path, int]:
    """Return the time of the last change of each file in a cache that is no lock."""
    return {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"}


@pytest.mark.parametrize("parts", [1, 3])
def test_parquet_in_several_parts_is_read_from_the_disk_as_it_is_from_memory(tmp_path: Path, parts: int) -> None:
    plain = folder_of(tmp_path / "set")
    mirror, cache = as_mirror(plain, parts), tmp_path / "cache"
    small, large = both(mirror, cache)
    same(large, small)
    assert isinstance(large.queries, StoredQueries)
    assert isinstance(large.documents, MappedDocuments)
    assert large.documents.fingerprint() == small.documents.fingerprint()
    assert list(large.documents) == list(small.documents) == list(open_folder(plain, "", "set").documents)
    assert list(large.queries.items()) == list(open_folder(plain, "", "set").queries.items())
    files = written(cache)
    same(open_dataset(str(mirror), cache), small)
    assert written(cache) == files  # the second time, nothing is read


def test_a_part_that_changed_is_read_again_with_the_others(tmp_path: Path) -> None:
    mirror, cache = as_mirror(folder_of(tmp_path / "set"), 3), tmp_path / "cache"
    before = open_dataset(str(mirror), cache).fingerprint()
    part = mirror / "corpus" / "corpus-00001-of-00003.parquet"
    polars.read_parquet(part).with_columns(polars.col("text") + " more").write_parquet(part)
    small, large = both(mirror, cache)
    same(large, small)
    assert list(large.documents) == list(small.documents)
    assert large.fingerprint() != before


def test_an_id_in_two_parts_is_refused_with_the_second_part(tmp_path: Path) -> None:
    for where in ("corpus", "queries"):
        mirror = as_mirror(folder_of(tmp_path / where), 3)
        first, last = (mirror / where / f"{where}-0000{part}-of-00003.parquet" for part in (0, 2))
        polars.concat([polars.read_parquet(last), polars.read_parquet(first)[:1]]).write_parquet(last)
        rows = len(polars.read_parquet(last))
        for cache in (None, tmp_path / "cache"):
            with refused(FormatError, "id-twice", f"{last.name}:{rows}"):
                open_folder(mirror, "", "set", cache=cache)


def test_judgments_in_several_parquet_files_are_refused_for_one_would_count_for_nothing(tmp_path: Path) -> None:
    mirror = as_mirror(folder_of(tmp_path / "set"), 2)
    query = next(iter(open_folder(mirror, "", "set").qrels))
    (mirror / "qrels").unlink()
    (mirror / "qrels").mkdir()
    for part in range(2):
        frame = polars.DataFrame({"query-id": [f"q{part}"], "corpus-id": ["d1"], "score": [1]})
        frame.write_parquet(mirror / "qrels" / f"train-{part:05}-of-00002.parquet")
    with refused(UsageError, "file-ambiguous", "train-00000-of-00002.parquet"):
        open_dataset(f"{mirror}#train", tmp_path / "cache")
    polars.DataFrame({"query-id": [query], "corpus-id": ["d1"], "score": [1]}).write_parquet(
        mirror / "qrels" / "test.parquet"
    )
    for name in (mirror, f"{mirror}#test"):  # the other split is whole
        assert dict(open_dataset(str(name), tmp_path / "cache").qrels[query]) == {"d1": 1}
