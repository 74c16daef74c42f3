"""Run a function in several processes that torch.distributed joins over gloo, forked from this one: nothing is imported
anew, so that two of them cost a fraction of a second.
"""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch._C._distributed_c10d import TCPStore

from cerank.kernels.rank_group import RankGroup


def run_ranks(count: int, work: Callable[[RankGroup], Any], folder: Path) -> list[Any]:
    """Return what `work` returned in each process; the errors of all are raised here."""

    def joined() -> Any:
        group = RankGroup(torch.device("cpu"))
        result = work(group)
        group.gather(None)  # nobody leaves while another still asks
        return result

    return in_processes(count, joined, folder)


def in_processes(count: int, work: Callable[[], Any], folder: Path) -> list[Any]:
    """Return what `work` returned in each of several processes that torchrun could have started."""
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60))
    children = []
    for number in range(count):
        child = os.fork()
        if not child:
            _run(number, count, store.port, work, folder)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    results = [pickle.loads((folder / f"result-{number}").read_bytes()) for number in range(count)]
    errors = [f"rank {number}: {value}" for number, (is_error, value) in enumerate(results) if is_error]
    if errors:
        raise AssertionError("\n".join(errors))
    return [value for _, value in results]


def _run(number: int, count: int, port: int, work: Callable[[], Any], folder: Path) -> None:
    settings = {"RANK": number, "WORLD_SIZE": count, "LOCAL_RANK": number, "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in settings.items()} | {"MASTER_ADDR": "localhost"})
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # the store is the parent's, as it is torchrun's
    try:
        torch.set_num_threads(1)
        result = (False, work())
    except BaseException:  # noqa: BLE001 - whatever it was, the parent shows it
        result = (True, traceback.format_exc())
    (folder / f"result-{number}").write_bytes(pickle.dumps(result))
    os._exit(0)
