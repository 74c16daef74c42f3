from __future__ import annotations

import gzip
import hashlib
import random
from pathlib import Path

import pytest

from cerank.core.rankings import Ranking, float32, ordered
from cerank.errors import FormatError, MissingError, UsageError
from cerank.trec.text_io import read_qrels, read_run, run_of, write_qrels, write_run
from tests.refusals import refused


def _file(folder: Path, content: bytes, name: str = "a.run") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def _plain(path: Path) -> dict[str, dict[str, float]]:
    """The run as a careless reader has it: ids and raw scores."""
    rows: dict[str, dict[str, float]] = {}
    for line in path.read_text().splitlines():
        query, _, document, _, score, _ = line.split()
        rows.setdefault(query, {})[document] = float(score)
    return rows


MALFORMED = {
    "five columns": b"1 Q0 d 1 2.0\n",
    "seven columns": b"1 Q0 d 1 2.0 tag more\n",
    "nan": b"1 Q0 d 1 nan t\n",
    "infinity": b"1 Q0 d 1 inf t\n",
    "minus infinity": b"1 Q0 d 1 -Infinity t\n",
    "a number that overflows double": b"1 Q0 d 1 1e999 t\n",
    "a number beyond float32": b"1 Q0 d 1 3.5e38 t\n",
    "an underscore in a number": b"1 Q0 d 1 1_0 t\n",
    "no number": b"1 Q0 d 1 high t\n",
    "hexadecimal": b"1 Q0 d 1 0x10 t\n",
    "a NUL": b"1 Q0 d\0 1 2.0 t\n",
    "bytes that are not UTF-8": b"1 Q0 \xff\xfe 1 2.0 t\n",
    "a wide space": "1 Q0 a\u00a0b 1 2.0 t\n".encode(),
    "a separator that only Python splits at": b"1 Q0 a\x1cb 1 2.0 t\n",
    "a document twice": b"1 Q0 d0 1 2.0 t\n",
}


@pytest.mark.parametrize("bad", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_row_is_refused_with_its_file_and_line(tmp_path: Path, bad: bytes) -> None:
    path = _file(tmp_path, b"1 Q0 d0 1 3.0 t\n\n2 Q0 d0 1 3.0 t\n" + bad + b"9 Q0 d9 1 3.0 t\n")
    with pytest.raises(FormatError) as caught:
        read_run(path)
    assert caught.value.where == f"{path}:4"


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
def test_utf_16_is_refused(tmp_path: Path, mark: bytes) -> None:
    path = _file(tmp_path, mark + b"1 Q0 d 1 2.0 t\n")
    with refused(FormatError, "utf16-text"):
        read_run(path)


def test_the_line_is_right_far_into_a_file_of_many_blocks(tmp_path: Path) -> None:
    rows = [f"{line // 100} Q0 document-{line} 1 {line} t" for line in range(120_000)]
    rows[110_000] = "broken"
    path = _file(tmp_path, "\n".join(rows).encode())
    with pytest.raises(FormatError) as caught:
        read_run(path)
    assert caught.value.where == f"{path}:110001"


def test_bad_gzip_of_every_kind_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"1 Q0 d 1 2.0 t\n" * 500 + random.Random(1).randbytes(2000).hex().encode())
    for number, bad in enumerate(
        (whole[:-9], whole[: len(whole) // 2], whole[:40] + b"x" + whole[41:], b"1 Q0 d 1 2 t\n")
    ):
        with pytest.raises(FormatError) as caught:
            read_run(_file(tmp_path, bad, f"{number}.run.gz"))
        assert caught.value.code in {"archive-damaged", "ending-does-not-match"}


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with refused(MissingError, "file-not-found"):
        read_run(tmp_path / "no.run")
    with refused(UsageError, "file-access"):
        read_run(tmp_path)


def test_gzip_tabs_runs_of_spaces_and_carriage_returns_are_accepted(tmp_path: Path) -> None:
    rows = b"q1\tQ0  a   1 \t 2.5 tag\r\nq1 Q0 b 2 1e0 tag\r\n"
    for path in (_file(tmp_path, rows), _file(tmp_path, gzip.compress(rows), "b.run.gz")):
        run = read_run(path)
        assert dict(run.ranking) == {"q1": ("a", "b")}
        assert run.ranking.scores("q1") == (2.5, 1.0)
        assert (run.tag, run.ties) == ("tag", 0)
        assert run.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_queries_need_not_stand_together_and_ranks_are_ignored(tmp_path: Path) -> None:
    path = _file(tmp_path, b"b Q0 x 1 1 t\na Q0 x 1 1 t\nb Q0 y 9 2 t\na Q0 y 9 2 t")
    assert dict(read_run(path).ranking) == {"b": ("y", "x"), "a": ("y", "x")}
    assert list(read_run(path).ranking) == ["b", "a"]


def test_ties_as_float32_fall_to_the_greater_document_id_and_are_counted(tmp_path: Path) -> None:
    path = _file(tmp_path, "1 Q0 d10 1 1.0 t\n1 Q0 d9 2 1.000000001 t\n1 Q0 é 3 1.0 t\n1 Q0 last 4 0.5 t\n".encode())
    run = read_run(path)
    assert run.ranking["1"] == ("é", "d9", "d10", "last")
    assert run.ties == 3
    assert len(set(run.ranking.scores("1"))) == 4


def test_ties_at_the_end_of_float32_are_refused(tmp_path: Path) -> None:
    path = _file(tmp_path, b"1 Q0 a 1 -3.4028234e38 t\n1 Q0 b 1 -3.4028234e38 t\n1 Q0 c 1 -3.4028234e38 t\n")
    with refused(FormatError, "too-many-ties"):
        read_run(path)


def test_an_empty_run_has_no_queries(tmp_path: Path) -> None:
    assert len(read_run(_file(tmp_path, b"")).ranking) == 0


def test_measures_of_a_tied_run_equal_trec_evals_on_the_raw_file(tmp_path: Path) -> None:
    import pytrec_eval

    chance = random.Random(7)
    documents = [f"d{number}" for number in range(40)]
    rows = [(f"q{q}", d, chance.randint(0, 4) / 4) for q in range(30) for d in chance.sample(documents, 25)]
    qrels = {f"q{q}": {d: chance.randint(0, 2) for d in chance.sample(documents, 15)} for q in range(30)}
    path = _file(tmp_path, "".join(f"{q} Q0 {d} 1 {s} t\n" for q, d, s in rows).encode())
    judge = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut_10", "recip_rank", "map", "P_5"})
    ranking = read_run(path).ranking
    ours = {query: dict(zip(ranking[query], ranking.scores(query), strict=True)) for query in ranking}
    assert judge.evaluate(ours) == judge.evaluate(_plain(path))


def test_measures_of_the_real_runs_equal_trec_evals_on_the_raw_files(shared: Path) -> None:
    import pytrec_eval

    folder = shared / "trec-dl-2020-top100"
    qrels = read_qrels(folder / "qrels")
    assert sum(map(len, qrels.values())) == 11_386
    judge = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut_10", "recip_rank", "map"})
    for path in sorted((folder / "runs").glob("*.run")):
        ranking = read_run(path).ranking
        ours = {query: dict(zip(ranking[query], ranking.scores(query), strict=True)) for query in ranking}
        assert judge.evaluate(ours) == judge.evaluate(_plain(path))


def test_trec_evals_own_test_run_is_read_and_its_junk_columns_are_refused(shared: Path) -> None:
    folder = shared / "trec_eval-tests"
    assert sum(map(len, read_run(folder / "results.test").ranking.values())) == 1500
    assert len(read_qrels(folder / "qrels.test")) == 3
    with refused(FormatError, "column-count"):
        read_run(folder / "results.trunc")


def test_a_written_run_reads_back_as_itself_and_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    chance = random.Random(3)
    scores = {
        f"q{q}": {f"d{d}": chance.gauss(0, 10.0 ** chance.randint(-30, 30)) for d in range(50)} for q in range(20)
    }
    ranking = ordered(scores)
    content = write_run(ranking, "cerank")
    assert content == write_run(ranking, "cerank")
    assert content[4:8] == bytes(4)  # gzip's clock
    run = read_run(_file(tmp_path, content, "a.run.gz"))
    assert dict(run.ranking) == dict(ranking)
    assert all(run.ranking.scores(query) == ranking.scores(query) for query in ranking)
    assert (run.tag, run.ties) == ("cerank", 0)


@pytest.mark.parametrize("value", [0.1, 1e-45, 16777217.0, 3.4028234663852886e38, -123.456])
def test_nine_digits_carry_every_float32(value: float) -> None:
    assert float32(float(f"{float32(value):.9g}")) == float32(value)


@pytest.mark.parametrize(
    ("query", "document", "tag"), [("a b", "d", "t"), ("q", "d\u3000", "t"), ("q", "", "t"), ("q", "d", "t\n")]
)
def test_ids_that_no_run_can_carry_are_refused_on_writing(query: str, document: str, tag: str) -> None:
    with pytest.raises(FormatError) as caught:
        write_run(Ranking({query: [document]}, {query: [1.0]}), tag)
    assert caught.value.code in {"id-empty", "id-with-white-space"}


def test_rows_from_elsewhere_are_checked_like_a_file() -> None:
    assert dict(run_of([("q", "a", 1.0), ("q", "b", 1.0)], "t", "there").ranking) == {"q": ("b", "a")}
    for rows in ([("q", "a", float("nan"))], [("q", "a", 1.0), ("q", "a", 2.0)], [("q", "a b", 1.0)]):
        with pytest.raises(FormatError) as caught:
            run_of(rows, "t", "there")
        assert caught.value.where == "there"


def test_qrels_of_trec_ms_marco_and_beir_read_alike(tmp_path: Path) -> None:
    expected = {"q1": {"a": 1, "b": -2}, "q2": {"a": 0}}
    trec = _file(tmp_path, b"q1 0 a 1\nq1 Q0 b -2\nq2 0 a 0\n")
    marco = _file(tmp_path, b"q1\t0\ta\t1\nq1\t0\tb\t-2\nq2\t0\ta\t0\n", "b.tsv")
    beir = _file(tmp_path, b"query-id\tcorpus-id\tscore\r\nq1\ta\t1\r\nq1\tb\t-2\r\nq2\ta\t0\r\n", "c.tsv")
    assert read_qrels(trec) == read_qrels(marco) == read_qrels(beir) == expected
    assert read_qrels(_file(tmp_path, write_qrels(expected), "d.gz")) == expected


def test_a_judgment_that_stands_twice_counts_once_and_two_grades_are_refused(tmp_path: Path) -> None:
    assert read_qrels(_file(tmp_path, b"1 0 a 1\n1 0 a 1\n")) == {"1": {"a": 1}}
    with refused(FormatError, "grade-twice", 2):
        read_qrels(_file(tmp_path, b"1 0 a 1\n1 0 a 2\n"))


@pytest.mark.parametrize(
    "row", [b"1 a 1", b"1 0 a 1 x", b"1 0 a 0.5", b"1 0 a 1_0", b"1 0 a", "1 0 a ١".encode(), b"1 0 a 99999999999"]
)
def test_malformed_qrels_are_refused_with_their_line(tmp_path: Path, row: bytes) -> None:
    path = _file(tmp_path, b"1 0 z 1\n" + row + b"\n")
    with pytest.raises(FormatError) as caught:
        read_qrels(path)
    assert caught.value.where == f"{path}:2"
