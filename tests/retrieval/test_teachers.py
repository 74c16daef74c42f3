from __future__ import annotations

import json
from pathlib import Path

import pytest

from cerank.errors import CerankError, FormatError, MissingError, UsageError
from cerank.retrieval.teachers import Repairs, read_teacher, repair
from tests.refusals import refused


def _rows(count: int, size: int = 3) -> str:
    def row(query: int) -> dict[str, object]:
        passages = [{"docid": f"d{query}-{place}", "text": "t", "rank": place} for place in range(1, size + 1)]
        return {"query_id": f"q{query}", "query": "a", "positive_passages": [], "retrieved_passages": passages}

    return "".join(json.dumps(row(query)) + "\n" for query in range(count))


def _pair(folder: Path, answers: object, rows: str) -> str:
    (folder / "teacher.json").write_text(json.dumps(answers))
    (folder / "teacher.jsonl").write_text(rows)
    return str(folder / "teacher.json")


@pytest.mark.parametrize(
    ("text", "order", "repairs"),
    [
        ("[2] > [3] > [1]", (1, 2, 0), Repairs()),
        ("[3]", (2, 0, 1), Repairs(1, missing=2)),
        ("[3] > [3] > [1] > [2]", (2, 0, 1), Repairs(1, repeated=1)),
        ("[0] > [4] > [2] > [1] > [3]", (1, 0, 2), Repairs(1, out_of_range=2)),
        ("I cannot rank these.", (0, 1, 2), Repairs(1, missing=3)),
        ("", (0, 1, 2), Repairs(1, missing=3)),
        ("[٢] > [1]", (0, 1, 2), Repairs(1, missing=2)),
        ("9" * 5000, (0, 1, 2), Repairs(1, missing=3, out_of_range=1)),
        ("[02] [1] [3]", (1, 0, 2), Repairs()),
    ],
)
def test_an_answer_becomes_a_permutation_and_its_faults_are_counted(
    text: str, order: tuple[int, ...], repairs: Repairs
) -> None:
    assert repair(text, 3) == (order, repairs)


def test_every_real_malformed_answer_becomes_a_permutation(shared: Path) -> None:
    rows = (shared / "rankgpt-malformed-permutations" / "outputs.tsv").read_text().splitlines()
    assert len(rows) == 9301
    total = Repairs()
    for row in rows:
        order, repairs = repair(row.split("\t")[1], 20)
        assert sorted(order) == list(range(20))
        total = total.plus(repairs)
    # Three of them are whole, only written otherwise ("[No. 1] > ...", "[1] [2]", a full stop at the end).
    assert total == Repairs(repaired=9298, missing=12_366, repeated=202, out_of_range=0)


def test_permutations_become_a_ranking_with_the_best_of_n_at_n(tmp_path: Path) -> None:
    teacher = read_teacher(_pair(tmp_path, ["[2] > [3] > [1]", "[3]"], _rows(2)))
    assert dict(teacher.ranking) == {"q0": ("d0-2", "d0-3", "d0-1"), "q1": ("d1-3", "d1-1", "d1-2")}
    assert teacher.ranking.scores("q0") == (3.0, 2.0, 1.0)
    assert teacher.repairs == Repairs(1, missing=2)
    assert len(teacher.sha256) == 64


def test_misaligned_and_malformed_permutations_are_refused(tmp_path: Path) -> None:
    twice = _rows(1) + _rows(1)
    for answers, rows, what in (
        (["[1]"], _rows(2), "permutation-count"),
        (["[1]", "[2]"], _rows(1), "permutation-count 2 1"),
        (["[1]", "[2]"], twice, "id-twice"),
        ({"a": 1}, _rows(1), "invalid-permutations"),
        ([1], _rows(1), "invalid-permutations"),
        (["[1]"], "{}\n", "invalid-record 1"),
        (["[1]"], '{"query_id": "q", "retrieved_passages": []}\n', "no-ranked-document"),
        (["[1]"], '{"query_id": "q", "retrieved_passages": [{"docid": "a"}, {"docid": "a"}]}\n', "id-twice"),
        (["[1]"], '{"query_id": "q q", "retrieved_passages": [{"docid": "a"}]}\n', "id-with-white-space"),
    ):
        with refused(FormatError, *what.split()):
            read_teacher(_pair(tmp_path, answers, rows))


def test_permutations_without_their_queries_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('["[1]"]')
    with refused(MissingError, "file-not-found", "a.jsonl"):
        read_teacher(str(path))


def test_a_run_file_is_a_teacher(tmp_path: Path) -> None:
    path = tmp_path / "t.run"
    path.write_text("q Q0 a 1 2.0 t\nq Q0 b 2 3.0 t\n")
    teacher = read_teacher(str(path))
    assert dict(teacher.ranking) == {"q": ("b", "a")}
    assert teacher.repairs == Repairs()


@pytest.mark.parametrize("spec", ["", "no/such.run", "no.json", "a\0b", "~nobody-of-that-name/x", "x" * 5000])
def test_what_is_no_teacher_is_refused(spec: str) -> None:
    with pytest.raises(CerankError):
        read_teacher(spec)
    if not spec:
        with pytest.raises(UsageError):
            read_teacher(spec)


def _run(folder: Path, scores: dict[str, list[float]]) -> Path:
    rows = [f"{query} Q0 d{at} 1 {score} t\n" for query, row in scores.items() for at, score in enumerate(row)]
    (folder / "teacher.run").write_text("".join(rows))
    return folder / "teacher.run"


def test_a_list_with_one_score_for_all_documents_teaches_nothing(tmp_path: Path) -> None:
    path = _run(tmp_path, {"q1": [1.0, 1.0, 1.0], "q2": [3.0, 2.0, 1.0], "q3": [1.0]})
    teacher = read_teacher(str(path))
    assert dict(teacher.ranking) == {"q2": ("d0", "d1", "d2"), "q3": ("d0",)}
    assert "50 %" in teacher.ties
    assert "1 of its 3 lists" in teacher.ties


def test_a_teacher_that_is_all_ties_is_refused(tmp_path: Path) -> None:
    with refused(UsageError, "teacher-scores-constant"):
        read_teacher(str(_run(tmp_path, {"q1": [1.0, 1.0], "q2": [0.5, 0.5]})))


def test_a_few_ties_are_chance_and_nothing_is_left_out(tmp_path: Path) -> None:
    scores = [float(100 - at) for at in range(50)]
    scores[10] = scores[9]
    teacher = read_teacher(str(_run(tmp_path, {"q1": scores})))
    assert len(teacher.ranking["q1"]) == 50
    assert not teacher.ties


def test_malformed_lists_can_be_dropped_and_are_counted(tmp_path: Path) -> None:
    spec = _pair(tmp_path, ["[2] > [3] > [1]", "[3]", "[1] > [1] > [2] > [3]"], _rows(3))
    teacher = read_teacher(spec, drops_malformed=True)
    assert list(teacher.ranking) == ["q0"]
    assert teacher.repairs == Repairs(dropped=2)
    run = tmp_path / "teacher.run"
    run.write_text("q0 Q0 d1 1 2.0 t\nq0 Q0 d2 2 1.0 t\n")
    with refused(UsageError, "no-permutations", run):
        read_teacher(str(run), drops_malformed=True)
