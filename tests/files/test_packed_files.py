from __future__ import annotations

import contextlib
import gzip
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest
import zstandard

from cerank.errors import CerankError, FormatError
from cerank.files import packed_files
from cerank.files.line_reader import line_blocks
from tests.refusals import refused

TEXT = b"one\ntwo\n"


def _zip(path: Path, *names: str, data: bytes = TEXT) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, data)
    return path


def _tar(path: Path, *names: str, mode: str = "w:gz", data: bytes = TEXT) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]  # the mode is one of two literals
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def _lines(path: Path) -> list[bytes]:
    return [line for _, lines in line_blocks(path) for line in lines]


def test_plain_gzip_zstandard_zip_and_tar_give_the_same_lines(tmp_path: Path) -> None:
    plain, packed, other = tmp_path / "a.tsv", tmp_path / "a.tsv.gz", tmp_path / "a.tsv.zst"
    plain.write_bytes(TEXT)
    packed.write_bytes(gzip.compress(TEXT))
    other.write_bytes(zstandard.compress(TEXT))
    for path in (
        plain,
        packed,
        other,
        _zip(tmp_path / "a.zip", "a.tsv"),
        _tar(tmp_path / "a.tar.gz", "a.tsv"),
        _tar(tmp_path / "a.tar", "deep/a.tsv", mode="w"),
    ):
        assert _lines(path) == [b"one", b"two"], path


def test_names_inside_an_archive_are_never_paths(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for path in (
        _zip(folder / "a.zip", "../../escaped.tsv"),
        _tar(folder / "a.tar", "../../escaped.tsv", mode="w"),
        _tar(folder / "b.tar", "/escaped.tsv", mode="w"),
    ):
        assert _lines(path) == [b"one", b"two"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar", "a.zip", "b.tar", "in"]


def test_litter_beside_the_one_file_is_passed_over_and_other_files_are_refused(tmp_path: Path) -> None:
    assert _lines(_zip(tmp_path / "a.zip", "__MACOSX/._a", ".DS_Store", "a.tsv")) == [b"one", b"two"]
    for path in (_zip(tmp_path / "b.zip", "a", "b"), _tar(tmp_path / "b.tar.gz", "a", "b"), _zip(tmp_path / "c.zip")):
        with refused(FormatError, "archive-file-count"):
            _lines(path)


def test_links_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret\n")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        entry = tarfile.TarInfo("a.tsv")
        entry.type, entry.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
        archive.addfile(entry)
    with refused(FormatError, "archive-file-count"):
        _lines(tmp_path / "a.tar")


@pytest.mark.parametrize("kind", ["gz", "zst", "zip", "tar.gz"])
def test_a_bomb_is_stopped_and_an_honest_file_is_not(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_files, "UNCHECKED_BYTES", 1 << 16)
    data = (b"x" * 99 + b"\n") * 40_000
    path = tmp_path / f"a.{kind}"
    if kind == "gz":
        path.write_bytes(gzip.compress(data))
    elif kind == "zst":
        path.write_bytes(zstandard.compress(data))
    elif kind == "zip":
        _zip(path, "a", data=data)
    else:
        _tar(path, "a", data=data)
    with refused(FormatError, "unpacks-too-large", 200):
        _lines(path)
    monkeypatch.setattr(packed_files, "LARGEST_RATIO", 20_000)
    assert len(_lines(path)) == 40_000


def test_a_pickle_is_refused_unopened_and_the_way_out_is_said(tmp_path: Path) -> None:
    touched = tmp_path / "touched"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (touched,))

    for protocol in range(2, 6):
        path = tmp_path / f"scores{protocol}.pkl.gz"
        path.write_bytes(gzip.compress(pickle.dumps(Evil(), protocol)))
        with refused(FormatError, "pickle-file") as caught:
            _lines(path)
        assert "cerank data import run" in caught.value.hint
    assert not touched.exists()


@pytest.mark.parametrize("cut", [1, 3, 7, 30, -1, -9, -30])
@pytest.mark.parametrize("kind", ["gz", "zip", "tar", "tar.gz"])
def test_whatever_is_cut_off_only_cerank_s_errors_come(tmp_path: Path, cut: int, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "gz":
        path.write_bytes(gzip.compress(TEXT))
    elif kind == "zip":
        _zip(path, "a")
    else:
        _tar(path, "a", mode="w:gz" if kind == "tar.gz" else "w")
    path.write_bytes(path.read_bytes()[:cut])
    with contextlib.suppress(CerankError):
        assert _lines(path) in ([b"one", b"two"], [b"P"], [b"PK\x03"], [b"a"])  # whole, or no archive any more


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    data = bytearray(_zip(tmp_path / "a.zip", "a").read_bytes())
    data[6] |= 1  # the flag of encryption in the file's header, and in the directory's
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with refused(FormatError, "archive-damaged"):
        _lines(tmp_path / "a.zip")
