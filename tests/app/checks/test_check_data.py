from __future__ import annotations

from pathlib import Path

import pytest

from cerank.app.checks.check_data import DataCheckRequest, check_data
from cerank.core.rankings import Ranking
from cerank.errors import CerankError, ExitCode
from cerank.evaluation.diagnostics import ceiling, ceiling_note, no_room_note
from cerank.settings import Flags, Settings, resolve
from tests.refusals import refused


def _settings(folder: Path) -> Settings:
    return resolve(Flags(lab=str(folder / "lab"), cache=str(folder / "cache")), {}, folder).settings


def _dataset(folder: Path, queries: dict[str, str], run: str = "") -> str:
    folder.mkdir()
    (folder / "docs.tsv").write_text("d1\ta cat sits on the mat\nd2\tA cat sits on the mat!\nd3\tdogs bark\nd4\tx\n")
    (folder / "queries.tsv").write_text("".join(f"{query}\t{text}\n" for query, text in queries.items()))
    (folder / "qrels").write_text("q1 0 d1 2\nq2 0 d3 1\nq2 0 d9 1\n")
    (folder / "first.run").write_text(run)
    return str(folder)


QUERIES = {"q1": "where does the cat sit today", "q2": "which animals bark"}


def test_the_ceiling_is_the_measure_of_the_candidates_in_the_order_of_their_grades() -> None:
    qrels = {"q": {"a": 2, "b": 1, "c": 1}, "p": {"a": 1}}
    ranking = Ranking({"q": ("x", "b", "a")}, {"q": (3.0, 2.0, 1.0)})
    # nDCG of (2, 1, 0) against the ideal (2, 1, 1): (2 + 1/log2(3)) / (2 + 1/log2(3) + 1/2); p has no candidates
    assert "1 of 2 queries" in ceiling_note(ranking, qrels)
    assert "0.4202" in ceiling_note(ranking, qrels)
    assert ceiling_note(ranking, {"q": qrels["q"]}) == ""
    assert ceiling(ranking, {"q": {"D7": 2}}) == {"q": 0.0}
    assert ceiling_note(ranking, {"q": {"D7": 2}})
    assert ceiling(ranking, qrels) == pytest.approx({"q": 2.6309297 / 3.1309297, "p": 0.0}, abs=1e-6)


def test_what_is_there_and_what_the_candidates_allow(tmp_path: Path) -> None:
    name = _dataset(tmp_path / "set", QUERIES, "q1 Q0 d2 1 3 t\nq1 Q0 d1 2 2 t\nq2 Q0 d4 1 1 t\n")
    request = DataCheckRequest(dataset=name, first_stage=f"{name}/first.run", depth=10)
    result = check_data(_settings(tmp_path), request)
    counts = dict(result.counts)
    assert counts["judged queries"] == "2"
    assert counts["grades"] == "1: 2, 2: 1"
    assert counts["queries without a positive candidate"] == "1 of 2"
    assert counts["best possible nDCG@10 on these candidates"] == "0.5000"
    said = " ".join(result.warnings)
    assert "1 judged document " in said
    assert "1 query: q2" in said
    assert "d2 for q1" in said  # a copy of the positive d1 that nobody judged


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        ({"qrels": ""}, "no-judgments", ["qrels"]),
        ({"qrels": "query-id\tcorpus-id\tscore\n"}, "no-judgments", ["qrels"]),
        ({"qrels": "q1 0 D7 1\nq2 0 D8 2\nq2 0 d1 0\n"}, "judged-unknown", [2, "D7", "d1"]),
        ({"qrels": "z1 0 d1 1\n", "collection.toml": 'without_text = "skip"\n'}, "no-judged-query", ["z1", "q1"]),
        ({"qrels": "z1 0 d1 1\n"}, "text-missing", ["z1"]),
        ({"queries.tsv": ""}, "no-queries", ["queries.tsv"]),
        ({"docs.tsv": ""}, "no-documents", ["docs.tsv"]),
        ({"first.run": ""}, "run-empty", ["first.run"]),
        ({"first.run": "z1 Q0 d1 1 1 t\n"}, "no-ranked-query", ["z1", "q1"]),
        ({"first.run": "q1 Q0 D7 1 1 t\n"}, "no-known-candidate", ["D7", "d1"]),
    ],
)
def test_files_that_are_empty_or_of_another_collection_are_refused(
    tmp_path: Path, files: dict[str, str], code: str, said: list[object]
) -> None:
    name = _dataset(tmp_path / "set", QUERIES, "q1 Q0 d1 1 1 t\n")
    for file, content in files.items():
        (tmp_path / "set" / file).write_text(content)
    with refused(CerankError, code, *said) as caught:
        check_data(_settings(tmp_path), DataCheckRequest(dataset=name, first_stage=f"{name}/first.run"))
    assert caught.value.exit_code != ExitCode.OK
    assert caught.value.hint


def test_a_dataset_without_qrels_is_no_mistake_and_told(tmp_path: Path) -> None:
    name = _dataset(tmp_path / "set", QUERIES)
    (tmp_path / "set" / "qrels").unlink()
    result = check_data(_settings(tmp_path), DataCheckRequest(dataset=name))
    assert any("no qrels" in warning for warning in result.warnings)


def test_queries_shared_with_another_dataset_by_id_text_and_nearly(tmp_path: Path) -> None:
    one = _dataset(tmp_path / "one", QUERIES)
    other = _dataset(tmp_path / "other", {"q1": "Where does the cat sit, today?", "q2": "something else entirely here"})
    result = check_data(_settings(tmp_path), DataCheckRequest(dataset=one, against=other))
    counts = dict(result.counts)
    assert counts[f"queries shared with {other} by id"] == "2"
    assert counts[f"queries shared with {other} by text"] == "1"
    near = {"q1": "how does a cross encoder rank the documents of a query", "q2": "y"}
    train = {"q1": "how does a cross encoder rank the documents of a query quickly", "q2": "z"}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    left, right = _dataset(tmp_path / "a/set", near), _dataset(tmp_path / "b/set", train)
    (tmp_path / "b/set/docs.tsv").write_text("d1\tother\nd3\tdocuments\n")
    counts = dict(check_data(_settings(tmp_path), DataCheckRequest(dataset=left, against=right)).counts)
    assert counts[f"queries nearly the same as one of {right}"] == "1"


def test_examples_are_what_the_model_reads(tmp_path: Path) -> None:
    name = _dataset(tmp_path / "set", QUERIES)
    request = DataCheckRequest(dataset=name, base="minilm", max_length=8, examples=5)
    examples = check_data(_settings(tmp_path), request).examples
    assert {(pair.document, pair.grade) for pair in examples} == {("a cat sits on the mat", 2), ("dogs bark", 1)}
    assert all(pair.tokens > 8 and pair.is_cut for pair in examples if pair.grade == 2)
    assert examples == check_data(_settings(tmp_path), request).examples


def test_a_first_stage_in_the_best_order_of_its_candidates_leaves_no_room():
    qrels = {"q1": {"a": 2, "b": 1}, "q2": {"c": 1}, "q3": {"x": 0}}
    best = {"q1": ("a", "b", "d"), "q2": ("c", "d")}
    worse = {"q1": ("b", "a", "d"), "q2": ("c", "d")}
    without = {"q1": ("a", "d"), "q2": ("c", "d")}  # the candidates lack b: no order of them is better
    assert "1.0000" in no_room_note(ranked(best), qrels)
    assert no_room_note(ranked(worse), qrels) == ""
    assert no_room_note(ranked(without), qrels)
    assert no_room_note(ranked(best), {"q3": {"x": 0}}) == ""


def ranked(docs):
    return Ranking(docs, {query: [float(-at) for at in range(len(names))] for query, names in docs.items()})
