"""Sample a stage's groups from a dataset folder, and print the memory that this process had of its own, in kB.

Run as a program of its own by `test_streamed_stages`: FOLDER CACHE ORDER SMALLEST, where files of at least SMALLEST
bytes stay on disk. The second line is a digest of the groups.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from pathlib import Path

from cerank.datasets import local_folders
from cerank.datasets.mapped import grouped_qrels
from cerank.datasets.open_datasets import open_dataset
from cerank.recipes.schema import Stage
from cerank.retrieval import first_stage
from cerank.training.sampling.sampler import Sampler, TrainingPool
from cerank.trec import ingest, open_run, query_places


def private_memory() -> int:
    """Return the process's private memory in kB; pages of mapped files are not in it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon:")))


def main(folder: str, cache: str, order: str, smallest: int) -> None:
    """Sample groups of the first, a middle and the last steps."""
    local_folders.LARGE_QUERIES = open_run.LARGE = smallest  # type: ignore[misc]
    query_places.MANY_QUERIES = min(smallest, 200_000)  # type: ignore[misc]
    if smallest == 1:  # as small as the files are, what is in memory at a time is smaller, too
        ingest.FIRST_IDS, ingest.BLOCK, grouped_qrels.BUCKET = 500, 1 << 15, 1 << 15  # type: ignore[misc]
    peak, is_over = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(0.01):
            peak = max(peak, private_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    dataset = open_dataset(folder, Path(cache))
    stage = Stage(epochs=2.0, group_size=4, groups_per_step=16, window=(1, 5), query_order=order)  # type: ignore[arg-type]
    ranking = first_stage.candidates(dataset, "first", 5, Path(cache))
    pool = TrainingPool(
        query_ids=dataset.query_ids, qrels=dataset.qrels, ranking=ranking, has_text=dataset.documents.__contains__
    )
    drawn = Sampler("s", stage, 1, pool)
    digest = hashlib.sha256(repr((drawn.sampling, drawn.steps)).encode())
    for step in (*range(1, 40), *range(drawn.steps // 2 - 5, drawn.steps // 2 + 5), drawn.steps):
        for group in drawn.groups(step):
            digest.update(repr((group.query_id, dataset.queries[group.query_id], group.doc_ids)).encode())
    is_over.set()
    watcher.join()
    print(max(peak, private_memory()))
    print(digest.hexdigest())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
