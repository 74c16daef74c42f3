"""Reading and measuring a TREC run of 6,980 queries x 100 documents, as dev/small of MS MARCO gives it.

python -m tests.benchmarks.evaluation
"""

from __future__ import annotations

import functools
import random
import statistics
import tempfile
import time
from pathlib import Path

QUERIES, DEPTH, REPEATS = 6980, 100, 5
MEASURES = ("nDCG@10", "RR(rel=2)@10", "AP(rel=2)")


@functools.cache
def _files() -> tuple[tempfile.TemporaryDirectory[str], Path, Path]:
    """A run whose lines stand as another tool writes them, and qrels with about as many judgments as DL's."""
    room = tempfile.TemporaryDirectory()
    run, qrels = Path(room.name) / "made.run", Path(room.name) / "made.qrels"
    rng = random.Random(7)
    lines, judged = [], []
    for number in range(QUERIES):
        query = str(1_000_000 + 13 * number)
        docs = rng.sample(range(8_841_823), DEPTH)
        score = 30.0
        for rank, doc in enumerate(docs, 1):
            score -= rng.random() / 10
            lines.append(f"{query} Q0 {doc} {rank} {score:.6f} made\n")
        judged += [f"{query} 0 {doc} {rng.choice((0, 1, 2, 3))}\n" for doc in rng.sample(docs, 10)]
        judged.append(f"{query} 0 {rng.randrange(8_841_823)} 3\n")
    run.write_text("".join(lines))
    qrels.write_text("".join(judged))
    return room, run, qrels


def measured() -> float:
    """Seconds from the files to every query's values; the qrels are read before, for they are read once."""
    from cerank.evaluation.measures import per_query
    from cerank.trec.text_io import read_qrels, read_run

    _, run, qrels = _files()
    judged = read_qrels(qrels)
    started = time.perf_counter()
    per_query(MEASURES, judged, read_run(run).ranking)
    return time.perf_counter() - started


if __name__ == "__main__":
    found = [measured() for _ in range(REPEATS)]
    print(f"{statistics.median(found):.3f} s, median of {REPEATS} [{min(found):.3f}, {max(found):.3f}]")
