from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import polars
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cerank.core.rankings import float32, strictly_decreasing
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import FormatError, UsageError
from cerank.files import disk
from cerank.importing.dataset_writer import DatasetWriter
from cerank.importing.deduplicate import candidates
from cerank.importing.external_sort import BUCKETS, SpillBuffer
from cerank.importing.import_files import ImportOptions, import_files
from tests.importing.conftest import jsonl
from tests.refusals import refused

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
        "import sys; from pathlib import Path; from cerank.importing import import_files as imports\n"
        "imports.sha256_file = lambda path: ''\n"
        "from cerank.importing import dataset_writer as module; real = module.DatasetWriter.__init__\n"
        "def told(self, *a, **k): real(self, *a, **k); print('begun', flush=True)\n"
        "module.DatasetWriter.__init__ = told\n"
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
    with refused(UsageError, "file-exists"):
        import_files("flag-embedding", [file], tmp_path / "out")
    with refused(UsageError, "not-registered", "flag-embedding"):
        import_files("flag-embeding", [file], tmp_path / "other")
    with refused(UsageError, "no-input-file"):
        import_files("flag-embedding", [], tmp_path / "other")
    with refused(UsageError, "folder-missing"):
        import_files("run", [file], tmp_path / "other", ImportOptions(collection="./no-such-folder"))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("room", [1 << 20, 90])
def test_rows_come_back_query_by_query_whether_or_not_they_fitted_in_memory(tmp_path: Path, room: int) -> None:
    spill = SpillBuffer(tmp_path, room)
    for number in range(1000):
        spill.add(number % 2, f"q{number % 70}", f"d{number}", number / 3, number)
    found: dict[str, list[tuple[object, ...]]] = {}
    for bucket in spill.buckets():
        for query, rows in bucket.partition_by("query", as_dict=True).items():
            assert query[0] not in found
            found[query[0]] = rows.rows()
    assert len(found) == 70
    for query, rows in found.items():
        numbers = [number for number in range(1000) if f"q{number % 70}" == query]
        assert rows == [(number % 2, query, f"d{number}", number / 3, number) for number in numbers]
    assert not list(tmp_path.iterdir())


def test_what_spilled_and_what_did_not_make_the_same_runs(tmp_path: Path) -> None:
    made = []
    for name, room in (("small", 100), ("large", 1 << 20)):
        (tmp_path / name).mkdir()
        sink = DatasetWriter(tmp_path / name, keeps_texts=False, rows_in_memory=room)
        for number in range(3 * BUCKETS):
            sink.scored("r", f"q{number % 90}", f"d{number % 7}", float(number % 5), "a:1")
            sink.judged(f"q{number % 90}", f"d{number % 3}", number % 2, "a:1")
        made.append((sink.finish(), sorted((tmp_path / name / "runs" / "r.run").read_text().splitlines())))
    assert made[0] == made[1]


def test_memory_is_bounded_by_the_room_and_not_by_the_rows(tmp_path: Path) -> None:
    spill = SpillBuffer(tmp_path, rows_in_memory=500)
    for number in range(5_000):
        spill.add(1, f"q{number % 1000}", f"d{number}", 1.0)
        assert len(spill._waiting[0]) + sum(frame.height for frame in spill._frames) <= 500
    assert sum(bucket.height for bucket in spill.buckets()) == 5_000


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.sampled_from("cdefg"),
            st.sampled_from([0.0, -0.0, 1.0, 1e-45, -1e-45, 2.5, 1e30, 16777217.0])
            | st.floats(-(2.0**127), 2.0**127, width=32),
            st.integers(0, 3),
        ),
        min_size=1,
        max_size=12,
    ),
    st.booleans(),
)
@settings(max_examples=60)
@example([("a", "c", 1e-45, 0), ("a", "d", 1.401298464324817e-45, 0)], False)  # one float32, two scores
@example([("a", "c", -1.401298464324817e-45, 0), ("a", "d", -1e-45, 0)], False)
@example([("a", "c", -0.0, 1), ("a", "d", 0.0, 0)], False)
def test_rows_settle_as_a_plain_reading_of_the_rules_says(
    rows: list[tuple[str, str, float, int]], is_listed: bool
) -> None:
    first: dict[str, dict[str, tuple[float, int]]] = {}
    for query, document, value, rank in rows:
        first.setdefault(query, {}).setdefault(document, (0.0 if is_listed else value, rank))
    wanted = []
    for query, found in first.items():
        order = sorted(found, key=lambda document: (-found[document][0], found[document][1]))
        values = [float(len(order) - place) for place in range(len(order))]
        if not is_listed:
            values = strictly_decreasing([found[document][0] for document in order])
        wanted += [(query, document, place + 1, values[place]) for place, document in enumerate(order)]
    frame = polars.DataFrame(rows, schema=["query", "document", "value", "rank"], orient="row")
    text, count = candidates(frame, "r", Counter(), is_listed=is_listed, depth=0)
    parts = [line.split(" ") for line in text.decode().splitlines()]
    assert [(part[0], part[2], int(part[3]), float32(float(part[4]))) for part in parts] == wanted
    assert count == len(wanted)


def test_ties_that_would_leave_float32_are_refused() -> None:
    rows = [("q", document, -3.4028234663852886e38, 0) for document in "ab"]
    frame = polars.DataFrame(rows, schema=["query", "document", "value", "rank"], orient="row")
    with refused(FormatError, "too-many-ties"):
        candidates(frame, "r", Counter(), is_listed=False, depth=0)


@pytest.mark.parametrize("name", ["ensemble-scores", "msmarco-id-triples", "run"])
def test_lines_that_need_a_closer_look_are_read_as_their_neat_neighbors_are(
    tmp_path: Path, collection: Path, name: str
) -> None:
    neat = {
        "ensemble-scores": "1.5\t2\t1\t10\t3\n2\t1\t2\t11\t4\n9\t2\t1\t12\t10\n",
        "msmarco-id-triples": "1\t10\t3\n1\t10\t4\n2\t5\t5\n2\t11\t4\n1\t10\t3\n",
        "run": "1 Q0 3 2 4.5 t\n2 Q0 6 1 0 t\n1 Q0 5 x 4.5 t\n1 Q0 4 1 4.5 t\n1 Q0 4 1 4.5 t\n",
    }[name]
    made = []
    for number, text in enumerate((neat, neat.replace("\n", "\r\n"), neat.replace("\n", "\n\n"))):
        (tmp_path / "a.run").write_text(text, newline="")
        into = tmp_path / f"out{number}"
        held = import_files(name, [tmp_path / "a.run"], into, ImportOptions(collection=str(collection))).contents
        files = {
            path.name: path.read_text() for path in into.rglob("*") if path.name in {"qrels", f"{held.runs[0][0]}.run"}
        }
        made.append((held, files, (into / "query-ids.txt").read_text()))
    assert made[0] == made[1] == made[2]


def test_nothing_usable_is_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(jsonl([{"query": " ", "pos": ["a"]}]))
    with refused(FormatError, "no-usable-query"):
        import_files("flag-embedding", [tmp_path / "a.jsonl"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
