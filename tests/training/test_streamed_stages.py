"""A stage over very many queries: memory does not grow with them, and the groups are those of data in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FEW, MANY = 10_000, 50_000


def made_folder(folder: Path, queries: int) -> Path:
    (folder / "runs").mkdir(parents=True)
    (folder / "docs.tsv").write_text("".join(f"d{number}\ttext {number}\n" for number in range(50)))
    with (folder / "queries.tsv").open("w") as texts, (folder / "qrels").open("w") as qrels:
        for number in range(queries):
            texts.write(f"query-{number}\twhat is the answer to the question of number {number}?\n")
            if number % 11:
                qrels.write(f"query-{number} 0 d{number % 50} 1\n")
    with (folder / "runs" / "first.run").open("w") as run:
        for number in range(queries):
            if number % 7:
                run.writelines(
                    f"query-{number} Q0 d{(number + rank * 7) % 50} {rank} {9 - rank} x\n" for rank in range(5)
                )
    return folder


def measured(folder: Path, cache: Path, order: str, smallest: int) -> tuple[int, str]:
    """Return the private memory in bytes, and the digest of the groups."""
    words = [sys.executable, "-m", "tests.training.sampling_memory", str(folder), str(cache), order, str(smallest)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    memory, digest = done.stdout.split()
    return 1024 * int(memory), digest


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads a process's private memory from /proc")
def test_memory_does_not_grow_with_the_queries_and_the_groups_are_those_of_data_in_memory(tmp_path: Path) -> None:
    memory = {}
    for queries in (FEW, MANY):
        folder, cache = made_folder(tmp_path / str(queries), queries), tmp_path / f"cache-{queries}"
        memory[queries, "read first"], built = measured(folder, cache, "computed", 1)
        memory[queries, "stored"], again = measured(folder, cache, "computed", 1)
        memory[queries, "in memory"], plain = measured(folder, cache, "computed", 1 << 40)
        assert built == again == plain
    grown = {kind: memory[MANY, kind] - memory[FEW, kind] for kind in ("read first", "stored", "in memory")}
    assert grown["in memory"] > 400 * (MANY - FEW)  # the measurement sees what is in memory
    assert grown["read first"] < 300 * (MANY - FEW)  # it took 1,300 where ids and judgments were in memory at once
    assert grown["stored"] < 50 * (MANY - FEW)  # bytes: less than one id
