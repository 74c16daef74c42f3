"""Run a function in several processes that torch.distributed joins over gloo, forked from this one: nothing is imported
anew, so that two of them cost a fraction of a second.

Invariant: all are forked before their store is made. Its thread looks up the names of those who connect, and a fork
that comes meanwhile inherits the lock of that lookup, which nobody in it will ever release: it would stand still as
soon as it looks up a name itself.
"""

from __future__ import annotations

import faulthandler
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

_PORT_BYTES = 2
_LONGEST = 600.0  # seconds after which a process stands still for good


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
    ports, tell_port = os.pipe()
    children = []
    for number in range(count):
        (folder / f"result-{number}").unlink(missing_ok=True)  # of processes that shared this folder before
        child = os.fork()
        if not child:
            os.close(tell_port)  # so that these end, too, if the one that forks them does before it has told the port
            _run(number, count, ports, work, folder)
        children.append(child)
    os.close(ports)
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60))
    os.write(tell_port, store.port.to_bytes(_PORT_BYTES) * count)
    os.close(tell_port)
    for child in children:
        os.waitpid(child, 0)
    results = [_result(folder, number) for number in range(count)]
    errors = [f"rank {number}: {value}" for number, (is_error, value) in enumerate(results) if is_error]
    if errors:
        raise AssertionError("\n".join(errors))
    return [value for _, value in results]


def _result(folder: Path, number: int) -> tuple[bool, Any]:
    """What a process left: whether it is an error, and the value; where it stood, if it had to be ended."""
    path = folder / f"result-{number}"
    if path.exists():
        result: tuple[bool, Any] = pickle.loads(path.read_bytes())
        return result
    return True, f"ended without a result\n{(folder / f'stack-{number}').read_text()}"


def _run(number: int, count: int, ports: int, work: Callable[[], Any], folder: Path) -> None:
    # one that stands still says where, and ends
    faulthandler.dump_traceback_later(_LONGEST, exit=True, file=(folder / f"stack-{number}").open("w"))
    told = os.read(ports, _PORT_BYTES)
    if not told:
        os._exit(1)
    port = int.from_bytes(told)
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
