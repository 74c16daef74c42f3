"""`python -m tests.fuzzing.huge READER --lines 10_000_000`: time and memory of one reader on a large file, or of all.

Each file is generated (ids and numbers of MS MARCO's size, every line another), read in a process of its own under a
limit of memory, and deleted. Growth is the peak of the process above what it took before it read; `content` is what the
file holds unpacked. One line of figures a reader comes out, for the table in the README.
"""

from __future__ import annotations

import argparse
import gzip
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

BATCH = 1_000_000  # lines generated at once
DEPTH = 1_000  # documents of a query
LIMIT = 12 << 30  # bytes of addresses, so that a mistake ends itself and not the machine
_WORDS = "the fuse of a lamp was found to have blown after the rain had come into the house through the old roof"
_READING = (
    '{{"type":"step","stage":0,"step":{0},"loss":0.{2},"learning_rate":1e-05,"grad_norm":1.5,"groups":8,"pairs":64}}'
)
_EVENT = '{{"attempt":{0},"kind":"stopped","text":"for the {0}th time","time":"2026-11-23T19:00:00Z"}}'


class Reader(NamedTuple):
    """A file to be read: its name, the pattern of its lines, and what reads it."""

    file: str
    line: str  # {0}: the line's number; {1}: the query's; {2}: a document's, once a query; {3}: falls within a query
    act: Callable[[Path], object]


def _run(path: Path) -> object:
    from cerank.trec.text_io import read_run

    return len(read_run(path).ranking)


def _run_cached(path: Path) -> object:
    from cerank.trec.open_run import open_run_file

    return len(open_run_file(path, path.parent / "cache").ranking)


def _qrels(path: Path) -> object:
    from cerank.trec.text_io import read_qrels

    return len(read_qrels(path))


def _folder(path: Path) -> object:
    from cerank.datasets.open_datasets import open_dataset

    folder = path.parent
    others = {"docs.jsonl": '{"doc_id":"d1","text":"one"}', "queries.tsv": "1\ta query", "qrels": "1 0 1 1"}
    for name, line in others.items():
        if name.partition(".")[0] != path.name.partition(".")[0]:
            (folder / name).write_text(line + "\n")
    dataset = open_dataset(str(folder), folder / "cache")
    return len(dataset.documents)


def _imported(name: str) -> Callable[[Path], object]:
    def act(path: Path) -> object:
        from cerank.importing.format_catalog import FORMATS
        from cerank.importing.import_files import ImportOptions, import_files

        collection = path.parent / "collection"
        collection.mkdir()
        needs = FORMATS.find(name).collection
        return import_files(
            name, [path], path.parent / "out", ImportOptions(collection=str(collection) if needs else "")
        )

    return act


def _readings(path: Path) -> object:
    from cerank.files import journal
    from cerank.runs.layout import ReadingRow

    tail: journal.Tail[ReadingRow] = journal.Tail(path, ReadingRow)
    return sum(iter(lambda: len(tail.new(1 << 24)), 0))


def _readings_whole(path: Path) -> object:
    from cerank.files import journal
    from cerank.runs.layout import ReadingRow

    return len(journal.read_valid_rows(path, ReadingRow)[0])


def _events(path: Path) -> object:
    from cerank.core.metrics import Event
    from cerank.files import journal

    return len(journal.read(path, Event))


def _glance(path: Path) -> object:
    from cerank.runs.layout import RunFolder
    from cerank.runs.run_summaries import LatestValidation

    return LatestValidation(RunFolder(path.parent)).refresh()


_TREC = "{1} Q0 {2} {0} {3} tag"
_JSON_DOCUMENT = '{{"doc_id":"{0}","text":"{0} ' + _WORDS + '"}}'
READERS: dict[str, Reader] = {
    "run": Reader("a.run", _TREC, _run),
    "run.gz": Reader("a.run.gz", _TREC, _run),
    "run, cached": Reader("a.run", _TREC, _run_cached),
    "run.gz, cached": Reader("a.run.gz", _TREC, _run_cached),
    "qrels": Reader("qrels", "{1} 0 {2} 1", _qrels),
    "queries": Reader("queries.tsv", "{0}\t{0} what blew the fuse of the lamp", _folder),
    "documents": Reader("docs.jsonl", _JSON_DOCUMENT, _folder),
    "documents.gz": Reader("docs.jsonl.gz", _JSON_DOCUMENT, _folder),
    "import run": Reader("a.run", _TREC, _imported("run")),
    "import id triples": Reader("a.tsv", "{1}\t{2}\t{0}", _imported("msmarco-id-triples")),
    "import scores": Reader("a.tsv", "{3}\t0.5\t{1}\t{2}\t{0}", _imported("ensemble-scores")),
    "import text triples": Reader("a.tsv", "query {1}\tpassage {2}\tpassage {0}", _imported("msmarco-text-triples")),
    "readings": Reader("readings.jsonl", _READING, _readings),
    "readings, all": Reader("readings.jsonl", _READING, _readings_whole),
    "readings, at a glance": Reader("readings.jsonl", _READING, _glance),
    "events": Reader("events.jsonl", _EVENT, _events),
}


def generate(path: Path, line: str, lines: int) -> int:
    """Writes the file; bytes of its content."""
    import polars as pl

    size = 0
    pieces = line.replace("{{", "\0").replace("}}", "\1")
    with gzip.open(path, "wb", compresslevel=1) if path.suffix == ".gz" else path.open("wb") as file:
        for start in range(0, lines, BATCH):
            number = pl.int_range(start, min(start + BATCH, lines), eager=True)
            place = number % DEPTH
            query = number // DEPTH
            columns = (number, query, (query * 7_919 + place * 8_821) % 8_841_823, 30 - place * 0.017)
            text, rest = [], pieces
            parts: list[pl.Series] = []
            while "{" in rest:
                before, _, rest = rest.partition("{")
                parts.append(columns[int(rest[0])])
                text.append(before + "\2")
                rest = rest[2:]
            pattern = "".join(text) + rest
            filled = pl.select(pl.format(pattern.replace("\2", "{}"), *map(pl.lit, parts))).to_series()
            whole = filled.str.replace_all("\0", "{", literal=True).str.replace_all("\1", "}", literal=True)
            block = ("\n".join(whole.to_list()) + "\n").encode()
            file.write(block)
            size += len(block)
    return size


def _peak() -> float:
    """MiB; not `ru_maxrss`, which starts with what the process had before it became this program."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def measure(name: str, path: Path) -> None:
    """Reads, and prints seconds, seconds of processors, and the growth in MiB."""
    import polars  # noqa: F401 - what it takes to be imported is not the reader's

    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    before, began, worked = _peak(), time.perf_counter(), time.process_time()
    READERS[name].act(path)
    print(f"{time.perf_counter() - began:.1f} {time.process_time() - worked:.1f} {_peak() - before:.0f}")


def main() -> int:
    """The command."""
    words = argparse.ArgumentParser(prog="python -m tests.fuzzing.huge", description=__doc__)
    words.add_argument("reader", help=f"'all', or one of: {', '.join(READERS)}")
    words.add_argument("--lines", type=int, default=10_000_000)
    words.add_argument("--inside", help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.inside:
        measure(asked.reader, Path(asked.inside))
        return 0
    print(
        "| reader | lines | file, MB | content, MB | s | CPU s | growth, MiB |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    return max(_measured(name, asked.lines) for name in (READERS if asked.reader == "all" else [asked.reader]))


def _measured(name: str, lines: int) -> int:
    with tempfile.TemporaryDirectory(prefix="huge-") as scratch:
        path = Path(scratch) / READERS[name].file
        content = generate(path, READERS[name].line, lines)
        size = path.stat().st_size
        command = [sys.executable, "-m", "tests.fuzzing.huge", name, "--inside", str(path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            print(f"| {name} | {lines:,} | refused: {done.stderr.strip().splitlines()[-1][:200]}", flush=True)
            return 1
        figures = " | ".join(done.stdout.split())
        print(f"| {name} | {lines:,} | {size / 1e6:.0f} | {content / 1e6:.0f} | {figures} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
