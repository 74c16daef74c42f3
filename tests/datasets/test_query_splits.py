"""Parts by what the data says of its queries: whole, disjoint, alike or in order, and refused where it says nothing."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from cerank.app import plans
from cerank.app.run_request import RunRequest
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import UsageError
from tests.refusals import refused

DRAW = random.Random(4)
WORDS = [f"w{number}" for number in range(400)]
DATES = [f"20{DRAW.randint(10, 29)}-{DRAW.randint(1, 12):02}-03" for _ in range(50)]


def write_dataset(folder: Path, **fields: list[object]) -> str:
    """Fifty queries with 1 to 20 relevant documents, and further keys in their JSON lines."""
    folder.mkdir(parents=True)
    rows = [
        {"_id": f"q{at}", "text": " ".join(DRAW.sample(WORDS, 6)), **{key: of[at] for key, of in fields.items()}}
        for at in range(50)
    ]
    (folder / "queries.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "docs.tsv").write_text("".join(f"d{number}\ta text\n" for number in range(20)))
    qrels = [f"q{at} 0 d{rank} 1\n" for at in range(50) for rank in range(1 + at % 20)]
    (folder / "qrels").write_text("".join(qrels))
    return str(folder)


def parts(name: str, key: str, cache: Path) -> list[list[str]]:
    train, validation, (test,) = plans.parts_of(name, key)
    return [list(open_dataset(part, cache).queries) for part in (train, validation, test)]


def relevant(query: str) -> int:
    return 1 + int(query[1:]) % 20


def test_parts_by_relevant_documents_are_alike_disjoint_and_whole(tmp_path):
    three = parts(write_dataset(tmp_path / "data"), "relevant", tmp_path)
    assert sorted(itertools.chain(*three)) == sorted(f"q{at}" for at in range(50))
    assert [len(part) for part in three] == [30, 10, 10]
    means = [sum(map(relevant, part)) / len(part) for part in three]
    assert max(means) - min(means) < 1.5  # the parts by id differ by more:
    by_id = [sum(map(relevant, part)) / len(part) for part in parts(str(tmp_path / "data"), "", tmp_path)]
    assert max(by_id) - min(by_id) > max(means) - min(means)


def test_parts_by_date_have_the_latest_in_the_test(tmp_path):
    name = write_dataset(tmp_path / "data", date=DATES)
    three = [[DATES[int(query[1:])] for query in part] for part in parts(name, "date", tmp_path)]
    assert sum(map(len, three)) == 50
    assert max(three[0]) < min(three[1])
    assert max(three[1]) < min(three[2])
    opened = open_dataset(f"{name}[80%: by date]", tmp_path)
    assert any(max(DATES) in note for note in opened.notes)
    assert opened.fingerprint() != open_dataset(f"{name}[60%:80% by date]", tmp_path).fingerprint()


def test_numbers_are_in_the_order_of_their_values_and_metadata_counts(tmp_path):
    years = [{"year": 5 + at % 10} for at in range(50)]
    name = write_dataset(tmp_path / "data", metadata=years)
    train, _, test = parts(name, "year", tmp_path)
    assert {5 + int(query[1:]) % 10 for query in train} == {5, 6, 7, 8, 9, 10}
    assert {5 + int(query[1:]) % 10 for query in test} == {13, 14}


def test_a_source_is_in_one_part(tmp_path):
    sources = ["abcde"[at % 5] for at in range(50)]
    three = parts(write_dataset(tmp_path / "data", source=sources), "source", tmp_path)
    assert [{sources[int(query[1:])] for query in part} for part in three] == [{"a", "b", "c"}, {"d"}, {"e"}]


def test_nearly_equal_queries_are_in_one_part(tmp_path):
    name = write_dataset(tmp_path / "data")
    rows = [json.loads(line) for line in (tmp_path / "data" / "queries.jsonl").read_text().splitlines()]
    for at in range(25):
        rows[2 * at + 1]["text"] = " ".join(reversed(rows[2 * at]["text"].split()))
    (tmp_path / "data" / "queries.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for part in parts(name, "relevant", tmp_path):
        assert {int(query[1:]) // 2 for query in part if int(query[1:]) % 2} == {int(query[1:]) // 2 for query in part}


@pytest.mark.parametrize("missing", [{}, {"topic": ["a"] * 50}, {"date": [*DATES[:-1], None]}, {"date": [[1]] * 50}])
def test_what_the_data_does_not_say_of_all_queries_is_refused(missing, tmp_path):
    name = write_dataset(tmp_path / "data", **missing)
    with refused(UsageError, "query-field-missing", "date"):
        open_dataset(f"{name}[:60% by date]", tmp_path)


def test_queries_without_fields_are_refused(tmp_path):
    name = write_dataset(tmp_path / "data")
    rows = [json.loads(line) for line in (tmp_path / "data" / "queries.jsonl").read_text().splitlines()]
    (tmp_path / "data" / "queries.tsv").write_text("".join(f"{row['_id']}\t{row['text']}\n" for row in rows))
    (tmp_path / "data" / "queries.jsonl").unlink()
    with refused(UsageError, "query-field-missing"):
        open_dataset(f"{name}[:60% by date]", tmp_path)


def test_a_part_that_would_be_empty_is_refused(tmp_path):
    name = write_dataset(tmp_path / "data", source=["web"] * 50)
    with refused(UsageError, "query-range-empty", "web"):
        open_dataset(f"{name}[80%: by source]", tmp_path)


def test_columns_of_csv_are_fields(tmp_path):
    name = write_dataset(tmp_path / "data")
    rows = [json.loads(line) for line in (tmp_path / "data" / "queries.jsonl").read_text().splitlines()]
    lines = ["query_id,text,date", *(f"{row['_id']},{row['text']},{DATES[at]}" for at, row in enumerate(rows))]
    (tmp_path / "data" / "queries.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "data" / "queries.jsonl").unlink()
    train, _, test = parts(name, "date", tmp_path)
    assert max(DATES[int(query[1:])] for query in train) < min(DATES[int(query[1:])] for query in test)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"dataset": "pydocs"}, "options-conflict"),
        ({"folds": "5"}, "options-conflict"),
        ({"split_by": "a]b"}, "query-field-missing"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused(changes, code):
    given = {"recipes": ("contrastive",), "dataset": "./coll", "split_by": "date"} | changes
    with refused(UsageError, code):
        RunRequest(**given).data()
