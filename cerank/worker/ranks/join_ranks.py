"""Join the processes of a run: torchrun started them, and told each its number by environment variables."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from cerank.errors import CerankError, ExitCode, RunFailedError, UsageError
from cerank.kernels.determinism import gpu_environment
from cerank.kernels.rank_group import RankGroup, is_computing
from cerank.training.trainer import PausedError
from cerank.worker.ranks.main_thread import MainThread
from cerank.worker.ranks.rank_signs import Fault, LostRankError, RankError, RankSigns


@contextlib.contextmanager
def joined_ranks(device: str) -> Iterator[tuple[RankGroup, list[str]]]:
    """Join the other processes for the time of the `with` block; yields their group, and the device of each.

    Raises:
        LostRankError: the connection to another process broke, and it left no error.
        RunFailedError: another process failed; the error is that one's.
    """
    group = RankGroup(torch.device(device))
    main_thread = MainThread(partial(is_computing, torch.device(device)))
    is_gpu = torch.device(device).type == "cuda"
    signs = RankSigns(group.number, group.count, _end, group.exchange, main_thread, waits_busily=is_gpu)
    signs.start()
    try:
        _check_alike(group, device)
        yield group, group.gather(device)
    except PausedError as pause:
        # torchrun asks all to stop when one dies; that is no pause
        if (other := signs.first_error(patience=0.0)) is not None and other.rank != group.number:
            raise _error_of(other) from pause
        raise
    except CerankError as error:
        signs.leave_error(error)
        raise
    except RuntimeError as error:
        other = signs.first_error()
        if other is not None and other.rank != group.number:
            raise _error_of(other) from error
        if is_broken_connection(error):
            first_line = str(error).splitlines()[0][:200]
            what = f"the connection to another process of the run broke: {first_line}"
            hint = "log.txt may say why it ended; `cerank resume` goes on from the last checkpoint"
            raise LostRankError(what, where=f"rank {group.number}", hint=hint, code="rank-lost") from error
        signs.leave_error(error)
        raise
    except Exception as error:
        signs.leave_error(error)
        raise
    finally:
        signs.stop()
        group.leave()


def is_broken_connection(error: RuntimeError) -> bool:
    """Return whether the error says that a message to or from another process did not get through."""
    if isinstance(error, torch.distributed.DistError):
        return True
    text = str(error).lower()
    return any(word in text for word in ("gloo", "nccl", "connection closed", "connection reset"))


def _error_of(other: RankError) -> RunFailedError:
    """Return the error of another process as that of the run."""
    where = f"rank {other.rank}{f', {other.where}' if other.where else ''}"
    return RunFailedError(f"rank {other.rank}: {other.what}", where=where, hint=other.hint, code="rank-failed")


def _check_alike(group: RankGroup, device: str) -> None:
    """Check that all devices are of one kind: others compute other bits, and the fastest would wait for the slowest.

    Raises:
        UsageError: they are not.
    """
    every = group.gather(gpu_environment(device))
    for number, other in enumerate(every):
        unequal = [
            f"{key} {value}, not {every[0].get(key)}" for key, value in other.items() if every[0].get(key) != value
        ]
        if unequal:
            raise UsageError(
                f"rank {number} computes on another kind of device than rank 0: {'; '.join(unequal)}",
                where="devices",
                hint="take devices of one kind",
                code="devices-differ",
            )


def _end(fault: Fault) -> None:
    """End this process at once: its main thread may wait in a call that nothing interrupts.

    Why it ends goes into the file in which torchrun looks for the errors of its processes.
    """
    who = "" if fault.is_own else f"{fault.where}: "
    os.write(2, f"rank {os.environ['RANK']}: {who}{fault.what}; this process ends\n{fault.log}".encode())
    if place := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        record = {"message": fault.what, "timestamp": int(time.time()), "where": fault.where}
        with contextlib.suppress(OSError):  # a full disk: the line above remains
            Path(place).write_text(json.dumps(record))
    os._exit(ExitCode.FAILED)
