from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
from collections.abc import Callable
from pathlib import Path

import lz4.frame
import pytest
import zstandard

from cerank.errors import FormatError
from cerank.files.line_reader import line_blocks
from cerank.files.packed_files import OpenedFile
from tests.refusals import refused

TEXT = b"".join(b"line %d\n" % number for number in range(40_000))
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": zstandard.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lz4": lz4.frame.compress,
}


def _lines(path: Path) -> list[bytes]:
    return [line for _, lines in line_blocks(path) for line in lines]


@pytest.mark.parametrize("ending", PACKERS)
def test_each_packing_gives_the_same_lines_under_any_name(tmp_path: Path, ending: str) -> None:
    packed = PACKERS[ending](TEXT)
    for name in (f"a.{ending}", "without-ending"):
        (tmp_path / name).write_bytes(packed)
        assert _lines(tmp_path / name) == TEXT.splitlines()


@pytest.mark.parametrize("ending", PACKERS)
def test_files_that_were_appended_to_each_other_are_one_text(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(PACKERS[ending](b"one\ntwo\n") + PACKERS[ending](b"three\n"))
    assert _lines(path) == [b"one", b"two", b"three"]


@pytest.mark.parametrize("ending", PACKERS)
@pytest.mark.parametrize("cut", [8, 40, -1, -9])
def test_a_file_that_was_cut_is_called_damaged(tmp_path: Path, ending: str, cut: int) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(PACKERS[ending](TEXT)[:cut])
    with refused(FormatError, "archive-damaged") as caught:
        _lines(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("ending", PACKERS)
def test_an_ending_that_the_content_contradicts_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.run.{ending}"
    path.write_bytes(b"q Q0 d 1 1 t\n")
    with refused(FormatError, "ending-does-not-match", ending):
        _lines(path)


@pytest.mark.parametrize("ending", ["", *PACKERS])
def test_the_hash_is_that_of_the_file_and_not_of_its_content(tmp_path: Path, ending: str) -> None:
    data = PACKERS[ending](TEXT) if ending else TEXT
    path = tmp_path / "a"
    path.write_bytes(data)
    opened = OpenedFile(path)
    while opened.stream.read(1 << 16):
        continue
    assert opened.sha256() == hashlib.sha256(data).hexdigest()
    opened.close()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 9\n", "wrong-file-kind LFS"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "html-page"),
        (b"7z\xbc\xaf\x27\x1c\0\0", "wrong-file-kind 7z"),
        (b"SQLite format 3\0", "wrong-file-kind SQLite"),
        (b"PAR1\x15\x04PAR1", "wrong-file-kind"),
        ("q1\tx\n".encode("utf-16"), "utf16-text"),
    ],
)
def test_a_file_that_is_no_text_is_called_by_what_it_is(tmp_path: Path, content: bytes, what: str) -> None:
    for name, data in (("a.tsv", content), ("a.tsv.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(data)
        with refused(FormatError, *what.split()):
            _lines(tmp_path / name)


def test_a_byte_order_mark_of_utf_8_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfq1\twhat\r\n")
    assert _lines(tmp_path / "a") == [b"q1\twhat\r"]
