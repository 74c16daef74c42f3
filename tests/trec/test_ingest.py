"""A large run, read through a memory map, is the run that the plain reader finds: in every bit, or with its error."""

from __future__ import annotations

import gzip
import itertools
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cerank.core.rankings import Ranking
from cerank.errors import CerankError, FormatError, MissingError, UsageError
from cerank.trec import ingest, mapped_run, open_run, parse_blocks
from cerank.trec.ingest import ingest_run
from cerank.trec.mapped_run import MappedRanking
from cerank.trec.open_run import open_run_file, run_file_sha256
from cerank.trec.text_io import read_run, read_trec_run
from tests.refusals import refused
from tests.trec.test_text_io import MALFORMED


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of some lines and buckets of some rows, so that a short run crosses their borders."""
    monkeypatch.setattr(ingest, "BLOCK", 300)
    monkeypatch.setattr(ingest, "BUCKET", 7)


def _same(left: Ranking, right: Ranking) -> bool:
    return list(left) == list(right) and all(
        left[query] == right[query] and left.scores(query) == right.scores(query) for query in right
    )


def _holds(path: Path, cache: Path) -> MappedRanking:
    """Ingests and holds the result against the plain reader's."""
    ranking, plain = ingest_run(path, cache), read_run(path)
    assert _same(ranking, plain.ranking)
    contents = ranking.store.contents
    assert (contents.ties, contents.tag, contents.sha256) == (plain.ties, plain.tag, plain.sha256)
    assert contents.rows == sum(map(len, plain.ranking.values()))
    assert mapped_run.verify(ranking.store.folder)
    return ranking


def _rows(queries: int, depth: int, seed: int, name: str = "{}") -> list[str]:
    draw = random.Random(seed)
    rows = []
    for query in range(queries):
        for rank, document in enumerate(draw.sample(range(10**6), depth), 1):
            score = draw.choice([1.5, 2.0, 2.5, -0.0, 0.0, 1e-45, -1e-45, 9.75]) if seed % 2 else 50 - rank
            rows.append(f"q{query} Q0 {name.format(document)} {rank} {score} tag{seed}\n")
    return rows


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", ["{}", "d{}", "é{}", "0{}"])
@pytest.mark.parametrize("is_shuffled", [False, True])
def test_a_run_in_blocks_equals_the_run_in_memory(tmp_path: Path, seed: int, name: str, is_shuffled: bool) -> None:
    rows = _rows(9, 1 + 4 * seed, seed, name)
    if is_shuffled:
        random.Random(seed).shuffle(rows)
    path = tmp_path / "a.run"
    path.write_text("".join(rows))
    ranking = _holds(path, tmp_path)
    assert ranking.store.contents.is_numbered == (name == "{}")


@pytest.mark.parametrize("again", [0, 7, 100])
def test_a_query_that_comes_again_is_found_though_few_ids_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: int
) -> None:
    monkeypatch.setattr(ingest, "FIRST_IDS", 5)
    rows = [f"q{number} Q0 d{place} 1 {9 - place} t\n" for number in range(200) for place in range(3)]
    (tmp_path / "grouped.run").write_text("".join(rows))
    assert not _holds(tmp_path / "grouped.run", tmp_path).store.contents.is_scattered
    (tmp_path / "again.run").write_text("".join([*rows, f"q{again} Q0 d7 1 7.5 t\n"]))
    ranking = _holds(tmp_path / "again.run", tmp_path)
    assert ranking.store.contents.is_scattered
    assert ranking[f"q{again}"] == ("d0", "d1", "d7", "d2")
    assert {file.name for file in ranking.store.folder.iterdir()} == {
        *(file.path for file in ranking.store.contents.files),
        "COMPLETE.json",
    }


_id = st.sampled_from(["1", "10", "2", "01", "+1", "a", "A", "é", "4294967295", "4294967296", '"', "#", "d1", "9" * 10])
_number = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["1", "+1.5", ".5", "5.", "1e3", "1E-3", "-0", "0", "16777217", "16777216", "1e-400", "0.1"]),
    st.sampled_from(["nan", "inf", "1_0", "0x1", "1e999", "3.5e38", "x", "-", "１", '"1"', "true"]),
)
_gap = st.sampled_from([" ", " ", " ", "\t", "  ", " \t ", "\v"])
_end = st.sampled_from(["\n", "\n", "\n", "\r\n", " \n", "\n\n", "\n \n"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), _id, _number, _gap, _end, st.sampled_from(["t", "t", "t x", ""])), max_size=12
    )
)
def test_whatever_a_file_holds_both_readers_find_the_same_or_the_same_fault(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]]
) -> None:
    folder = tmp_path_factory.mktemp("made")
    path = folder / "a.run"
    text = "".join(f"{q}{gap}Q0{gap}{d}{gap}1{gap}{s}{gap}{tag}{end}" for q, d, s, gap, end, tag in rows)
    path.write_bytes(text.encode())
    try:
        expected = read_trec_run(path)
    except CerankError as error:
        fault = error
    else:
        assert _same(ingest_run(path, folder), expected.ranking)
        return
    with pytest.raises(type(fault)) as caught:
        ingest_run(path, folder)
    assert (caught.value.what, caught.value.where) == (fault.what, fault.where)
    assert not list(folder.glob("rankings/*.part"))


@settings(max_examples=100)
@given(st.text(alphabet="0123456789.+-eE_naif ", max_size=12))
def test_a_score_is_the_number_that_the_plain_reader_takes_it_for(text: str) -> None:
    row = f"q Q0 d 1 {text} t\n".encode()
    fast = parse_blocks.parse_fast(row)
    if fast is None or not len(fast):
        return
    found = parse_blocks.parse_slowly(Path("a"), row, 1)
    assert fast.equals(found)


@pytest.mark.parametrize("bad", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("before", [0, 3, 40])
def test_a_malformed_row_is_refused_with_its_file_and_line(tmp_path: Path, bad: bytes, before: int) -> None:
    path = tmp_path / "a.run"
    lines = b"".join(b"9%d Q0 d1 1 3.0 t\n" % number for number in range(before))
    path.write_bytes(lines + b"1 Q0 d0 1 3.0 t\n" + bad + b"9 Q0 d9 1 3.0 t\n")
    with pytest.raises(FormatError) as caught:
        ingest_run(path, tmp_path)
    assert caught.value.where == f"{path}:{before + 2}"
    assert [entry.suffix for entry in (tmp_path / "rankings").iterdir()] == [".lock"]


def test_the_real_runs_are_the_same_either_way(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "BLOCK", 1 << 16)
    paths = sorted(shared.glob("*/runs/*.run"))
    assert len(paths) > 5
    for path in paths:
        _holds(path, tmp_path)


def test_packed_runs_are_read_and_known_by_the_hash_of_what_lies_on_disk(tmp_path: Path) -> None:
    content = "".join(_rows(4, 30, 1)).encode()
    for name, packed in (("a.run.gz", gzip.compress(content)), ("a.run.zst", zstandard.compress(content))):
        path = tmp_path / name
        path.write_bytes(packed)
        _holds(path, tmp_path)
        for cut in (len(packed) // 2, len(packed) - 3):
            (tmp_path / f"cut-{name}").write_bytes(packed[:cut])
            for read in (lambda p: ingest_run(p, tmp_path), read_run):
                with refused(FormatError, "archive-damaged"):
                    read(tmp_path / f"cut-{name}")
    two = tmp_path / "two.run.zst"
    two.write_bytes(zstandard.compress(content[:3000]) + zstandard.compress(content[3000:]))
    _holds(two, tmp_path)
    wrong = tmp_path / "b.run.zst"
    wrong.write_bytes(content)
    with refused(FormatError, "ending-does-not-match"):
        ingest_run(wrong, tmp_path)


def test_queries_whose_ranks_contradict_their_scores_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.run"
    path.write_text(
        "a Q0 x 1 3 t\na Q0 y 2 3 t\na Q0 z 3 1 t\n"  # fine: a tie may stand either way
        "b Q0 x 2 1 t\nb Q0 y 1 2 t\n"  # fine: not sorted, and ranked by score
        "c Q0 x 1 1 t\nc Q0 y 2 2 t\n"
        "d Q0 x first 1 t\n"
    )
    assert ingest_run(path, tmp_path).store.contents.misranked == 2


def test_an_empty_run_has_no_queries(tmp_path: Path) -> None:
    path = tmp_path / "a.run"
    for content in (b"", b"\n \n"):
        path.write_bytes(content)
        assert len(ingest_run(path, tmp_path)) == 0


def test_a_stored_ranking_is_cut_and_picked_from_as_any_other(tmp_path: Path) -> None:
    path = tmp_path / "a.run"
    path.write_text("".join(_rows(6, 12, 3, "d{}")))
    ranking, plain = ingest_run(path, tmp_path), read_run(path).ranking
    queries = ["q4", "nowhere", "q1"]
    assert _same(ranking.top(5).only(queries), plain.top(5).only(queries))
    assert _same(ranking.only(queries).top(7).top(30), plain.only(queries).top(7))
    assert "q1" in ranking
    assert "q1" not in ranking.only(["q2"])
    assert 7 not in ranking
    assert ranking.get("nowhere", ()) == ()
    for ask in (ranking.__getitem__, ranking.scores):
        with pytest.raises(KeyError):
            ask("nowhere")
    assert [ranking[query] for query in ("q1", "q2", "q1")] == [plain[query] for query in ("q1", "q2", "q1")]


def test_a_run_is_made_once_and_known_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.run"
    path.write_text("".join(_rows(2, 5, 2)))
    ingest_run(path, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(ingest, "write_mapped", lambda *_: pytest.fail("made again"))
        ingest_run(path, tmp_path)
    path.write_text("q Q0 d 1 1 t\n")
    assert dict(ingest_run(path, tmp_path)) == {"q": ("d",)}


def test_damage_and_leftovers_in_the_cache_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.run"
    path.write_text("".join(_rows(2, 5, 2)))
    folder = ingest_run(path, tmp_path).store.folder
    scores = folder / "scores.bin"
    scores.write_bytes(scores.read_bytes()[:-1])
    assert mapped_run.open_mapped(folder) is None
    _holds(path, tmp_path)
    scores.write_bytes(bytes(scores.stat().st_size))
    assert not mapped_run.verify(folder)
    leftover = next((tmp_path / "rankings").glob("*.stamp")).with_suffix(".part")
    leftover.mkdir()
    (leftover / "queries.txt").write_text("half")
    (folder / "COMPLETE.json").unlink()
    _holds(path, tmp_path)
    assert not leftover.exists()


def test_a_crash_at_any_write_leaves_nothing_that_is_believed(tmp_path: Path) -> None:
    from cerank.files import disk

    class Crash(BaseException):
        pass

    path = tmp_path / "a.run"
    path.write_text("".join(_rows(3, 9, 1)))
    for last in itertools.count(1, 4):
        cache, count = tmp_path / str(last), itertools.count(1)

        def watch(_name: str, _path: Path, count=count, last=last) -> None:
            if next(count) >= last:
                raise Crash

        try:
            with disk.observe(watch):
                ingest_run(path, cache)
        except Crash:
            _holds(path, cache)
            continue
        break
    assert last > 30


def test_two_that_ask_at_once_both_get_it(tmp_path: Path) -> None:
    path = tmp_path / "a.run"
    path.write_text("".join(_rows(3, 9, 1)))
    code = "import sys; from pathlib import Path; from cerank.trec.ingest import ingest_run; "
    code += "print(len(ingest_run(Path(sys.argv[1]), Path(sys.argv[2]))))"
    words = [sys.executable, "-c", code, str(path), str(tmp_path)]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [one.communicate(timeout=300)[0] for one in both] == ["3\n", "3\n"]


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.run"
    path.write_text("".join(_rows(3, 9, 1)))

    def grow(_done: int, _total: int) -> None:
        os.utime(path, ns=(1, 1))

    with refused(UsageError, "file-changed"):
        ingest_run(path, tmp_path, grow)
    assert not list((tmp_path / "rankings").glob("*.part"))


def test_no_thread_is_left_behind_by_a_run_that_was_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.run"
    path.write_text("broken\n" + "".join(_rows(30, 30, 1)))
    before = threading.active_count()
    with pytest.raises(FormatError):
        ingest_run(path, tmp_path)
    assert threading.active_count() == before


def test_size_decides_and_a_run_that_was_ingested_by_hand_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = tmp_path / "a.run", tmp_path / "cache"
    path.write_text("".join(_rows(3, 9, 1)))
    plain = read_run(path)
    assert not isinstance(open_run_file(path, cache).ranking, MappedRanking)
    assert not cache.exists()
    monkeypatch.setattr(open_run, "LARGE", 10)
    assert not isinstance(open_run_file(path, None).ranking, MappedRanking)
    assert run_file_sha256(path, cache) == plain.sha256 == run_file_sha256(path, None)
    found = open_run_file(path, cache)
    assert isinstance(found.ranking, MappedRanking)
    assert (found.tag, found.ties, found.sha256) == (plain.tag, plain.ties, plain.sha256)
    monkeypatch.undo()
    assert isinstance(open_run_file(path, cache).ranking, MappedRanking)
    with pytest.raises(MissingError):
        open_run_file(tmp_path / "no.run", cache)
