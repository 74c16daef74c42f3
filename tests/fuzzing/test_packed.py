"""Packed files that hold far more than their size: refused early, with the file's name, in bounded memory."""

from __future__ import annotations

import contextlib
import gzip
import struct
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import zstandard

from cerank.errors import FormatError
from cerank.files import packed_files, tables
from cerank.files.line_reader import line_blocks
from cerank.files.tables import check_size
from cerank.importing.import_files import ImportOptions, import_files
from cerank.trec import ingest, read_columns
from cerank.trec.text_io import read_run
from tests.refusals import refused

_READ = """
import sys
from pathlib import Path
from cerank.trec.open_run import open_run_file
from cerank.errors import FormatError
path = Path(sys.argv[1])
try:
    open_run_file(path, path.parent / "cache" if len(sys.argv) > 2 else None)
except FormatError as error:
    print(error)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)
"""


def _said(*words: str) -> tuple[str, int]:
    """What a process of its own says of a run, and its peak memory in MiB."""
    done = subprocess.run([sys.executable, "-c", _READ, *words], check=True, capture_output=True, text=True)
    *lines, peak = done.stdout.splitlines()
    return "\n".join(lines), int(peak)


def _repeated(path: Path, block: bytes, times: int) -> None:
    """Zstandard of a block again and again, which costs no time to make."""
    packed = zstandard.compress(block)
    path.write_bytes(packed * times)


def test_rows_that_a_dense_file_repeats_fill_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.run.zst"
    block = b"".join(b"q1 Q0 d%d 1 1 t\n" % number for number in range(50_000)) * 40
    _repeated(path, block, 12)  # 1.2 MB hold 460 MB, of which each row would take 60 bytes of memory
    said, peak = _said(str(path))
    assert "appears twice" in said
    assert peak < 900


def test_a_query_without_end_is_refused_while_it_is_ingested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "BUCKET", 1_000)
    monkeypatch.setattr(ingest, "BLOCK", 1 << 14)
    asked: list[int] = []
    monkeypatch.setattr(ingest, "order_rows", lambda frame: asked.append(len(frame)))
    path = tmp_path / "a.run"
    path.write_bytes(b"".join(b"q1 Q0 d%d 1 1 t\n" % (number % 900) for number in range(20_000)))
    with refused(FormatError, "id-twice") as caught:
        ingest.ingest_run(path, tmp_path / "cache")
    assert caught.value.where.endswith(":901")
    assert not asked, "rows were held until the query ended"


def test_an_honest_run_is_not_looked_at_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(_: object) -> None:
        raise AssertionError("an honest file was looked at for repetition")

    monkeypatch.setattr(read_columns, "check_no_duplicates", no)
    monkeypatch.setattr(read_columns, "UNCHECKED_BYTES", 1 << 10)
    path = tmp_path / "a.run.gz"
    rows = (b"q%d Q0 d%d 1 %f t\n" % (row // 100, row * 7919 % 99991, 1 - row / 1e6) for row in range(30_000))
    path.write_bytes(gzip.compress(b"".join(rows)))
    assert read_columns.read_columns(path).ranking == read_run(path).ranking


@pytest.mark.parametrize("name", ["a.run.zst", "a.run"])
def test_what_is_damaged_is_called_by_what_it_is(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(zstandard.compress(b"x" * 1000)[:-4])
    with refused(FormatError, "archive-damaged"):
        list(line_blocks(path))


# --- parquet


def _imported(path: Path) -> None:
    (path.parent / "collection").mkdir(exist_ok=True)
    import_files("run", [path], path.parent / "out", ImportOptions(collection=str(path.parent / "collection")))


def _refused(path: Path, code: str) -> None:
    with refused(FormatError, code) as caught:
        _imported(path)
    assert caught.value.where == str(path)
    assert not (path.parent / "out").exists()


def test_a_parquet_page_that_unpacks_to_very_much_is_refused_unopened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    frame = pl.DataFrame({"query_id": ["x" * (66 << 20)], "doc_id": ["d"], "rank": [1]})
    frame.write_parquet(path, compression="zstd", statistics=False)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(tables, "scan_parquet", None)  # it is refused before that would fail
    _refused(path, "unpacks-too-large")


def test_a_parquet_file_of_very_many_equal_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    count = 4_000_000
    columns = {"query_id": pl.repeat(1, count, eager=True), "doc_id": pl.repeat(1, count, eager=True)}
    pl.DataFrame(columns | {"rank": pl.repeat(1, count, eager=True)}).write_parquet(path)
    _refused(path, "unpacks-too-large")


def test_a_long_text_that_every_row_of_a_parquet_file_names_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_files, "UNCHECKED_BYTES", 1 << 20)
    path = tmp_path / "a.parquet"
    ids = pl.repeat("q" * 2_000, 3_000, eager=True)
    pl.DataFrame({"query_id": ids, "doc_id": pl.int_range(3_000, eager=True), "rank": 1}).write_parquet(path)
    _refused(path, "unpacks-too-large")


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip", "lz4", "uncompressed"])
@pytest.mark.parametrize("rows", [0, 1, 70_000])
def test_the_pages_of_honest_parquet_are_counted(rows: int, compression: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    number = pl.int_range(rows, eager=True)
    frame = pl.DataFrame({"query_id": number // 100, "doc_id": number.cast(pl.String), "rank": number % 100})
    frame = frame.with_columns(
        pl.lit("a text").alias("text"), pl.lit(None).alias("none"), pl.lit(value=True).alias("b")
    )
    frame.write_parquet(path, compression=compression, row_group_size=20_000)  # type: ignore[arg-type]  # a parameter
    check_size(path)


def test_every_cut_and_changed_byte_of_a_parquet_file_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    number = pl.int_range(40, eager=True)
    pl.DataFrame({"query_id": number // 10, "doc_id": number, "rank": number % 10}).write_parquet(path)
    sound = path.read_bytes()
    for at in range(0, len(sound), 23):
        for changed in (sound[:at], sound[:at] + bytes([sound[at] ^ 0xFF]) + sound[at + 1 :]):
            path.write_bytes(changed)
            with contextlib.suppress(FormatError):  # and nothing else
                check_size(path)


def test_a_parquet_of_lists_within_lists_is_refused_before_they_are_followed(tmp_path):
    footer = b"\x19" * 5001
    path = tmp_path / "deep.parquet"
    path.write_bytes(b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1")
    with refused(FormatError, "invalid-parquet"):
        check_size(path)
