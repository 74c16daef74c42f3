"""What ingesting a TREC run of MS MARCO's size costs: `python -m tests.benchmarks.ingest --lines 50_000_000`.

A run like ColBERTv2's over the training queries is generated (500 passages a query of 8,841,823, scores with six
decimals), ingested in a process of its own, whose peak memory is taken, and sampled. Everything is deleted at the end.
"""

from __future__ import annotations

import argparse
import gzip
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

PASSAGES = 8_841_823
DEPTH = 500
BATCH = 4_000  # queries written at once


def write(path: Path, lines: int, kind: str) -> None:
    """A run of `lines` rows: "numbers" as ids, "texts", or "scattered" so that no query's rows stand together."""
    queries = lines // DEPTH
    draw = np.random.default_rng(1)
    with gzip.open(path, "wb", compresslevel=1) if path.suffix == ".gz" else path.open("wb") as file:
        for start in range(0, queries, BATCH):
            count = min(BATCH, queries - start)
            rank = np.tile(np.arange(1, DEPTH + 1), count)
            frame = pl.DataFrame(
                {
                    "query": np.repeat(np.arange(start, start + count) * 2 + 121352, DEPTH),
                    "q0": pl.repeat("Q0", count * DEPTH, eager=True),
                    # a stride apart from the count gives each query distinct passages
                    "document": (np.repeat(draw.integers(0, PASSAGES, count), DEPTH) + rank * 17_321) % PASSAGES,
                    "rank": rank,
                    "score": np.round(32.0 - rank * 0.0137 - draw.random(count * DEPTH) * 0.013, 6),
                    "tag": pl.repeat("colbertv2", count * DEPTH, eager=True),
                }
            )
            if kind == "texts":
                frame = frame.with_columns(
                    pl.concat_str(pl.lit("msmarco_passage_"), pl.col("document")).alias("document")
                )
            if kind == "scattered":
                frame = frame.sort("rank", maintain_order=True)
            frame.write_csv(file, include_header=False, separator=" ")


def ingest(path: Path, cache: Path) -> None:
    """Ingests, and prints the seconds and the peak memory of this process."""
    from cerank.trec.ingest import ingest_run

    began = time.perf_counter()
    ranking = ingest_run(path, cache)
    seconds = time.perf_counter() - began
    rows = ranking.store.contents.rows
    size = sum(entry.size for entry in ranking.store.contents.files)
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak, work = used.ru_maxrss / 1024, used.ru_utime + used.ru_stime
    print(f"ingested {rows:,} rows of {len(ranking):,} queries in {seconds:.1f} s: {rows / seconds / 1e6:.2f} M rows/s")
    print(f"{work:.1f} s of processors: {rows / work / 1e6:.2f} M rows for each second of one")
    print(f"peak memory {peak:,.0f} MiB; {path.stat().st_size / 1e9:.2f} GB became {size / 1e9:.2f} GB")


def sample(path: Path, cache: Path, groups: int) -> None:
    """Opens the ranking and draws groups of 8 from ranks 1 to 200, as a stage does."""
    from cerank.recipes.schema import Stage
    from cerank.training.sampling.sampler import Sampler, TrainingPool
    from cerank.trec.ingest import ingest_run

    began = time.perf_counter()
    ranking = ingest_run(path, cache)
    print(f"opened in {time.perf_counter() - began:.2f} s")
    began = time.perf_counter()
    queries = list(ranking)
    qrels = {query: {ranking[query][0]: 1} for query in queries[:: max(1, len(queries) // 10_000)]}
    print(f"the first document of {len(qrels):,} queries in {time.perf_counter() - began:.2f} s")
    stage = Stage(steps=groups // 16, groups_per_step=16, window=(1, 200))
    began = time.perf_counter()
    sampler = Sampler(
        "s",
        stage,
        1,
        TrainingPool(query_ids=list(qrels), qrels=qrels, ranking=ranking.top(200), has_text=lambda _: True),
    )
    counted = time.perf_counter()
    drawn = sum(len(sampler.groups(step)) for step in range(1, sampler.steps + 1))
    seconds = time.perf_counter() - counted
    print(f"supply of {len(qrels):,} queries counted in {counted - began:.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{drawn:,} groups in {seconds:.2f} s: {drawn / seconds:,.0f} a second; peak memory {peak:,.0f} MiB")


def main() -> None:
    """Generates, ingests and samples, each in a process of its own."""
    told = argparse.ArgumentParser(description=__doc__)
    told.add_argument("--lines", type=int, default=50_000_000)
    told.add_argument("--groups", type=int, default=10_000)
    told.add_argument("--kind", choices=["numbers", "texts", "scattered"], default="numbers")
    told.add_argument("--gz", action="store_true")
    told.add_argument("--folder", type=Path, default=None, help="where there is room; the system's folder if left out")
    told.add_argument("--part", nargs=3, metavar=("WHAT", "RUN", "CACHE"), help=argparse.SUPPRESS)
    given = told.parse_args()
    if given.part:
        what, run, cache = given.part
        sample(Path(run), Path(cache), given.groups) if what == "sample" else ingest(Path(run), Path(cache))
        return
    room = Path(tempfile.mkdtemp(prefix="ingest-", dir=given.folder))
    try:
        path = room / f"made.run{'.gz' if given.gz else ''}"
        began = time.perf_counter()
        write(path, given.lines, given.kind)
        print(
            f"wrote {given.lines:,} lines, {path.stat().st_size / 1e9:.2f} GB, in {time.perf_counter() - began:.0f} s"
        )
        for what in ("ingest", "sample"):
            words = ["--part", what, str(path), str(room / "cache"), "--groups", str(given.groups)]
            subprocess.run([sys.executable, "-m", "tests.benchmarks.ingest", *words], check=True)
    finally:
        shutil.rmtree(room)


if __name__ == "__main__":
    main()
