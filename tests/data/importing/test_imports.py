from __future__ import annotations

import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from cerank.data.datasets import open_dataset
from cerank.data.importing.imports import Choices, import_files
from cerank.data.importing.sink import Sink
from cerank.data.importing.spill import BUCKETS, Row, Spill
from cerank.errors import FormatError, UsageError
from cerank.store import disk
from tests.data.importing.conftest import jsonl

ROW = {"query": "q", "pos": ["a"], "neg": ["b"], "pos_scores": [2], "neg_scores": [1]}


class Crash(BaseException):
    """Stands for a kill: nothing after it reaches the disk."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    path.write_text(jsonl([ROW]))
    return path


def test_a_crash_at_any_operation_leaves_the_whole_folder_or_none(tmp_path: Path, file: Path) -> None:
    operations: list[str] = []
    with disk.observe(lambda name, _: operations.append(name)):
        import_files("flag-embedding", [file], tmp_path / "whole")
    wanted = {path.name: path.read_bytes() for path in (tmp_path / "whole").rglob("*") if path.is_file()}
    wanted.pop("import.json")  # names its folder
    for point in range(len(operations)):
        into, seen = tmp_path / f"out{point}", [0]

        def crash(_name: str, _path: Path, point: int = point, seen: list[int] = seen) -> None:
            seen[0] += 1
            if seen[0] > point:
                raise Crash

        with pytest.raises(Crash), disk.observe(crash):
            import_files("flag-embedding", [file], into)
        if into.exists():
            found = {path.name: path.read_bytes() for path in into.rglob("*") if path.is_file()}
            found.pop("import.json")
            assert found == wanted
        else:
            import_files("flag-embedding", [file], into)  # what the crash left is no hindrance
        assert open_dataset(str(into), tmp_path).runs == ("negatives", "teacher")


def test_a_killed_import_leaves_no_folder_of_that_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "endless.run")  # the import waits for its end
    program = (
        "import sys; from pathlib import Path; from cerank.data.importing import imports, archives\n"
        "archives.checked_file = imports.checked_file = lambda path: path\n"
        "imports.sha256_of = lambda path: ''\n"
        "from cerank.data.importing import sink; real = sink.Sink.__init__\n"
        "def told(self, *a, **k): real(self, *a, **k); print('begun', flush=True)\n"
        "sink.Sink.__init__ = told\n"
        "imports.import_files('run', [Path(sys.argv[1])], Path(sys.argv[2]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "endless.run"), str(tmp_path / "out")], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "out").exists()


def test_a_folder_that_exists_is_never_touched(tmp_path: Path, file: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        import_files("flag-embedding", [file], tmp_path / "out")
    with pytest.raises(UsageError, match=r"did you mean 'flag-embedding'"):
        import_files("flag-embeding", [file], tmp_path / "other")
    with pytest.raises(UsageError, match="names no file"):
        import_files("flag-embedding", [], tmp_path / "other")
    with pytest.raises(UsageError, match="is no folder"):
        import_files("run", [file], tmp_path / "other", Choices(collection="./no-such-folder"))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("room", [1 << 20, 200])
def test_rows_come_back_query_by_query_whether_or_not_they_fitted_in_memory(tmp_path: Path, room: int) -> None:
    spill = Spill(tmp_path, room)
    for number in range(1000):
        spill.add(number % 2, f"q{number % 70}", f"d{number}", number / 3, number)
    found = {(table, query): rows for table, query, rows in spill.groups()}
    assert len(found) == 70
    for (table, query), rows in found.items():
        numbers = [number for number in range(1000) if number % 2 == table and f"q{number % 70}" == query]
        assert rows == [Row(f"d{number}", number / 3, number) for number in numbers]
    assert not list(tmp_path.iterdir())


def test_what_spilled_and_what_did_not_make_the_same_runs(tmp_path: Path) -> None:
    made = []
    for name, room in (("small", 300), ("large", 1 << 20)):
        (tmp_path / name).mkdir()
        sink = Sink(tmp_path / name, keeps_texts=False, room=room)
        for number in range(3 * BUCKETS):
            sink.scored("r", f"q{number % 90}", f"d{number % 7}", float(number % 5), "a:1")
            sink.judged(f"q{number % 90}", f"d{number % 3}", number % 2, "a:1")
        made.append((sink.finish(), sorted((tmp_path / name / "runs" / "r.run").read_text().splitlines())))
    assert made[0] == made[1]


def test_memory_is_bounded_by_the_room_and_not_by_the_rows(tmp_path: Path) -> None:
    peaks = []
    for rows in (5_000, 15_000):
        (tmp_path / str(rows)).mkdir()
        spill = Spill(tmp_path / str(rows), room=20_000)
        tracemalloc.start()
        for number in range(rows):
            spill.add(1, f"q{number % 1000}", f"d{number}", 1.0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        spill.close()
    assert peaks[1] < 1.2 * peaks[0]


def test_nothing_usable_is_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(jsonl([{"query": " ", "pos": ["a"]}]))
    with pytest.raises(FormatError, match="no queries that can be used"):
        import_files("flag-embedding", [tmp_path / "a.jsonl"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
