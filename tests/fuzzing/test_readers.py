"""Every reader against every kind of bad file: an error of cerank's with its place, in little time and memory."""

from __future__ import annotations

import gzip
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cerank.core.decode import toml_table
from cerank.errors import CerankError, FormatError
from cerank.files import packed_files
from cerank.files.hashing import sha256_file
from cerank.files.line_reader import line_blocks
from cerank.models.bases import locate
from cerank.settings import Flags, resolve
from cerank.trec.text_io import read_run
from tests.fuzzing.targets import TARGETS, corpus
from tests.refusals import refused
from tests.work import steps_of

QUICK = [name for name in TARGETS if not name.startswith("import-")] + ["import-run", "import-tevatron"]
STEPS = 3_000_000  # 20,000 lines cost 40 each, a key of 100,000 parts 13 for each part


def _seed(name: str) -> bytes:
    return next(content for file, content in corpus(name) if file == "seed")


def _swapped(seed: bytes, by: bytes) -> bytes:
    """The seed with its plain numbers in another form."""
    for old in (b"2.5", b"1.5", b"0.5"):
        seed = seed.replace(old, by)
    return seed.replace(b":1", b":" + by).replace(b"= 1", b"= " + by)


def nasty(name: str) -> Iterator[tuple[str, bytes]]:
    """(kind, bytes) of what a file may hold instead of what it should."""
    seed = _seed(name)
    yield "nothing", b""
    yield "a byte order mark", b"\xef\xbb\xbf" + seed
    yield "UTF-16", seed.decode("utf-8", "replace").encode("utf-16")
    yield "CRLF", seed.replace(b"\n", b"\r\n")
    yield "CR", seed.replace(b"\n", b"\r")
    yield "NUL", seed[:5] + b"\0" + seed[5:]
    yield "not UTF-8", seed + b"\xff\xfe\xed\xa0\x80\n"
    yield "half characters", seed.replace(b'"d1"', b'"\\ud800"').replace(b'"q1"', b'"\\udfff"')
    yield "twice", seed + seed
    yield "NaN", _swapped(seed, b"NaN")
    yield "nan", _swapped(seed, b"nan")
    yield "infinity", _swapped(seed, b"1e999")
    yield "a number of 400 digits", seed.replace(b"1", b"9" * 400)
    yield "a number of 5000 digits", seed.replace(b"1", b"9" * 5000)
    yield "deep JSON", b"[" * 100_000
    yield "deep inside", seed.replace(b'"a"', b"[" * 100_000 + b"]" * 100_000)
    yield "a deep TOML array", b"a = " + b"[" * 100_000
    yield "a deep TOML table", b"a = " + b"{a=" * 50_000
    yield "a TOML key of many parts", b"[" + b".".join([b"a"] * 100_000) + b"]\nx=1\n"
    yield "one long line", seed.rstrip(b"\n") + b"x" * 500_000
    yield "empty lines", b"\n" * 20_000
    yield "gzip", gzip.compress(seed)
    yield "gzip, cut", gzip.compress(seed)[:-5]
    yield "gzip with more behind it", gzip.compress(seed) + b"junk"
    yield "Zstandard", zstandard.compress(seed)
    yield "Zstandard, cut", zstandard.compress(seed)[:-3]
    yield "a zip", b"PK\x03\x04" + seed
    yield "a pickle", b"\x80\x04\x95" + seed
    yield "parquet's mark", b"PAR1" + seed + b"PAR1"


@pytest.mark.parametrize("name", QUICK)
def test_whatever_a_file_holds_its_reader_takes_it_or_says_what_and_where(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    for number, (kind, content) in enumerate(nasty(name)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / target.file).write_bytes(content)
        error, _ = steps_of(lambda folder=folder: target.refusal(folder), at_most=STEPS)
        if error is not None and name != "overrides":
            assert error.where, (kind, str(error))


@pytest.mark.parametrize("name", TARGETS)
def test_what_a_fuzzer_once_kept_is_read_or_refused(name: str, tmp_path: Path) -> None:
    kept = list(corpus(name))
    assert kept, "each target has a seed"
    for number, (_, content) in enumerate(kept):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / TARGETS[name].file).write_bytes(content)
        TARGETS[name].refusal(folder)


@pytest.mark.parametrize("name", ["recipe", "matrix", "settings", "readings", "notes", "queue", "base-config", "plan"])
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_few_bytes_changed_in_a_good_file_are_read_or_refused(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(_seed(name))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    folder = tmp_path_factory.mktemp("changed")
    (folder / TARGETS[name].file).write_bytes(bytes(content))
    TARGETS[name].refusal(folder)


# --- what is no file


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _circle(path: Path) -> None:
    path.symlink_to(path.name)


def _nowhere(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


@pytest.mark.parametrize("make", [_fifo, _device, Path.mkdir, _circle, _nowhere])
@pytest.mark.parametrize("name", ["run", "run-ingested", "qrels", "queries-tsv", "recipe", "matrix", "settings"])
def test_a_pipe_a_device_a_folder_and_a_circle_of_links_are_refused_at_once(
    name: str, make: object, tmp_path: Path
) -> None:
    make(tmp_path / TARGETS[name].file)  # type: ignore[operator]  # pytest's parameters have no type
    error = TARGETS[name].refusal(tmp_path)
    assert error is not None or name in {"qrels", "settings"}  # a folder `qrels` is BEIR's; settings need not exist


@pytest.mark.parametrize("make", [_fifo, _device, Path.mkdir])
def test_a_pipe_in_place_of_a_runs_file_hangs_nothing(make: object, tmp_path: Path) -> None:
    from tests.fuzzing.targets import records_now
    from tests.tui.labs import LabFolder

    folder = LabFolder(tmp_path / "lab")
    good = folder.run("good")
    names = ("plan.json", "events.jsonl", "readings.jsonl", "done.json", "notes.json", "progress.json", "lease", "stop")
    for name in names:
        run = folder.run(name)
        (run.path / name).unlink(missing_ok=True)
        make(run.path / name)  # type: ignore[operator]  # pytest's parameters have no type
    listed = {row.folder.name: row for row in folder.lab.listed()}
    assert listed[good.name].status.state == "waiting"
    assert len(listed) == len(names) + 1
    assert records_now()


# --- bombs


_NEWLINES = bytes.fromhex("28b52ffd0058")  # a frame without its size, a window of 2 MiB


def _zst_bomb(blocks: int) -> bytes:
    """Four bytes for each 128 KiB: the densest that Zstandard has."""
    block = (((1 << 17) << 3) | 2).to_bytes(3, "little") + b"\n"
    last = (((1 << 17) << 3) | 3).to_bytes(3, "little") + b"\n"
    return _NEWLINES + block * blocks + last


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def test_a_zstandard_bomb_is_stopped_before_it_takes_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.run.zst"
    path.write_bytes(_zst_bomb(20_000))  # 80 KB that unpack to 2.6 GB, in one piece where nobody looks
    before = _peak()
    with refused(FormatError, "unpacks-too-large", 200):
        for _ in line_blocks(path):
            pass
    assert _peak() - before < 160 << 20


def test_a_gzip_bomb_of_empty_lines_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_files, "UNCHECKED_BYTES", 1 << 20)
    path = tmp_path / "a.run.gz"
    path.write_bytes(gzip.compress(b"\n" * (8 << 20)))
    with refused(FormatError, "unpacks-too-large", 200):
        read_run(path)


def test_a_row_that_a_packed_file_repeats_for_ever_is_refused_early(tmp_path: Path) -> None:
    path = tmp_path / "a.run.gz"
    path.write_bytes(gzip.compress(b"q1 Q0 d1 1 1 t\n" * 400_000))
    before = _peak()
    with refused(FormatError, "id-twice") as caught:
        read_run(path)
    assert caught.value.where.endswith(":2")
    assert _peak() - before < 64 << 20


def test_a_line_without_end_is_refused_within_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "a.run"
    with path.open("wb") as file:
        file.truncate(100 << 20)  # sparse: NUL bytes and no line end
    before = _peak()
    with refused(FormatError, "line-too-long", 64):
        read_run(path)
    assert _peak() - before < 300 << 20


def test_a_recipe_of_any_size_is_read_no_further_than_a_mebibyte(tmp_path: Path) -> None:
    path = tmp_path / "cerank.toml"
    with path.open("wb") as file:
        file.truncate(1 << 33)
    before = _peak()
    with refused(CerankError, "file-too-large"):
        resolve(Flags(), {}, tmp_path)
    assert _peak() - before < 64 << 20


def test_a_key_of_very_many_parts_is_refused_before_its_parts_are_looked_at() -> None:
    text = b"x = 1\n[" + b".".join([b"a"] * 400_000) + b"]\n"
    with refused(FormatError, "nested-too-deep"):
        steps_of(lambda: toml_table(text, "a.toml"), at_most=10_000)


@pytest.mark.parametrize(("name", "line"), [("recipe", "key{}=1"), ("settings", "key{}=1"), ("recipe", "[stages.s{}]")])
def test_twice_as_many_mistakes_in_a_file_cost_twice_the_steps_and_are_not_all_told(
    name: str, line: str, tmp_path: Path
) -> None:
    counts = []
    for mistakes in (110, 220):
        (tmp_path / TARGETS[name].file).write_text("\n".join(line.format(number) for number in range(mistakes)))
        error, steps = steps_of(lambda: TARGETS[name].refusal(tmp_path), at_most=STEPS)
        assert error is not None
        assert error.what.count("\n") <= 100
        counts.append(steps)
    assert counts[1] < 2.5 * counts[0], counts


def test_a_matrix_of_very_many_seeds_is_read_in_some_steps_for_each_seed(tmp_path: Path) -> None:
    seeds = ",".join(map(str, range(20_000)))
    (tmp_path / "a.toml").write_text(f'name = "m"\nrecipes = ["distill"]\nseeds = [{seeds}]\n')
    error, _ = steps_of(lambda: TARGETS["matrix"].refusal(tmp_path), at_most=STEPS)
    assert error is None


def test_dots_in_texts_and_comments_are_no_keys() -> None:
    dots = b"." * 500
    assert toml_table(b"# " + dots + b'\nx = "' + dots + b'" # ' + dots + b"\n", "a.toml") == {"x": "." * 500}


def test_hashing_a_device_is_refused() -> None:
    with refused(CerankError, "file-access"):
        sha256_file(Path("/dev/zero"))


def test_a_base_whose_config_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CerankError):
        locate(str(tmp_path), fetch=False)
