"""`cerank rerank --devices`: a process on each device scores chunks of queries, and this one deals them out.

Whoever is free gets the next chunk, so that devices with long documents do not keep the others waiting. Finished chunks
lie beside the output, so that the same command, with any number of devices, continues with what is left.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import msgspec

from cerank.app.score_pairs import score_by_model
from cerank.errors import CerankError, RunFailedError
from cerank.inference.stored_chunks import OutputShards, ShardIdentity
from cerank.machine.devices import device_of_process, physical_cores
from cerank.recipes.sections.passage_specs import PassageSpec
from cerank.settings import Settings

START = "spawn"  # of a process: CUDA does not survive a fork
_SECONDS_TO_END = 10.0


class ScoringShare(msgspec.Struct, frozen=True):
    """What a process needs to know to share in a re-ranking."""

    settings: Settings  # with the device and the threads of this process
    folder: Path  # of the model
    dataset: str
    first_stage: str
    depth: int
    precision: str | None
    output: Path  # beside which the scores of finished chunks are kept
    identity: ShardIdentity
    passages: PassageSpec | None = None  # how documents are cut
    document_template: str = ""
    base_template: str = ""  # as the model reads a document, where that is another text


class _Asks(msgspec.Struct, frozen=True):
    """A process asks for the next chunk."""


class _ScoredQueries(msgspec.Struct, frozen=True):
    """A process has scored a chunk."""

    queries: int  # that it has scored so far


class _Failed(msgspec.Struct, frozen=True):
    """A process cannot go on."""

    error: str
    where: str = ""
    hint: str = ""
    code: str = ""


class ShareDone(msgspec.Struct, frozen=True):
    """A process has no more to do."""

    computed: int  # pairs that went through the model
    precision: str


def score_on_devices(
    share: ScoringShare, devices: Sequence[str], numbers: Sequence[int], progress: Callable[[int], None]
) -> list[ShareDone]:
    """Score chunks of queries on several devices, and leave the scores beside the output.

    Args:
        share: what each process needs, with the settings of all.
        devices: a process is started on each.
        numbers: the chunks that are to be scored.
        progress: called with the number of queries that are finished.

    Raises:
        RunFailedError: a process failed or is gone; finished chunks stay.
    """
    settings = share.settings
    threads = settings.threads or max(1, physical_cores() // len(devices))
    context: Any = multiprocessing.get_context(START)  # what it makes depends on how processes start
    processes, ends = [], list[Connection]()
    try:
        for number in range(len(devices)):
            ours, theirs = context.Pipe()
            own = msgspec.structs.replace(settings, device=device_of_process(devices, number), threads=threads)
            process = context.Process(
                target=work, args=(msgspec.structs.replace(share, settings=own), theirs), name=own.device, daemon=True
            )
            process.start()
            theirs.close()  # so that its end here tells that the process is gone
            processes.append(process)
            ends.append(ours)
        return _deal(processes, ends, numbers, progress)
    finally:
        for process in processes:
            process.terminate()
            process.join(_SECONDS_TO_END)
        for end in ends:
            end.close()


def _deal(
    processes: Sequence[Any], ends: Sequence[Connection], numbers: Sequence[int], progress: Callable[[int], None]
) -> list[ShareDone]:
    """Answer the processes until each has said that it is done."""
    left, finished, done = iter(numbers), dict.fromkeys(ends, 0), list[ShareDone]()
    open_ends: list[Any] = list(ends)
    while open_ends:
        ready: list[Any] = wait(open_ends)
        for end in ready:
            process = processes[ends.index(end)]
            try:
                message = end.recv()
            except (EOFError, OSError):
                process.join(_SECONDS_TO_END)
                raise _lost(process) from None
            if isinstance(message, _Failed):
                where = f"{process.name}{f', {message.where}' if message.where else ''}"
                raise RunFailedError(message.error, where=where, hint=message.hint, code=message.code)
            if isinstance(message, ShareDone):
                done.append(message)
                open_ends.remove(end)
            elif isinstance(message, _ScoredQueries):
                finished[end] = message.queries
                progress(sum(finished.values()))
            else:
                end.send(next(left, None))
    return done


def _lost(process: Any) -> RunFailedError:
    """Return the error of a process that ended without reporting one."""
    code = process.exitcode
    how = f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with exit code {code}"
    hint = "memory may be short; give the same command again: finished chunks are not scored again"
    return RunFailedError(f"the process on {process.name} {how}", where=process.name, hint=hint, code="rank-lost")


def work(share: ScoringShare, end: Connection) -> None:
    """Score one chunk after another, as a process of its own."""
    from cerank.datasets.document_fields import with_template
    from cerank.datasets.open_datasets import open_dataset
    from cerank.retrieval.first_stage import candidates

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that deals out ends this one
    sends = threading.Lock()  # on a GPU, a thread asks for the next chunk while this one scores

    def say(message: object) -> None:
        with sends:
            end.send(message)

    def dealt() -> Iterator[int]:
        while True:
            say(_Asks())
            number = end.recv()
            if number is None:
                return
            yield number

    try:
        dataset = with_template(open_dataset(share.dataset, share.settings.cache), share.document_template)
        before = candidates(dataset, share.first_stage, share.depth, share.settings.cache)
        scored = score_by_model(
            share.settings,
            share.folder,
            with_template(dataset, share.base_template),
            before,
            precision=share.precision,
            progress=lambda queries, _: say(_ScoredQueries(queries)),
            shards=OutputShards(share.output, share.identity),
            numbers=dealt(),
            passages=share.passages,
        )
        say(ShareDone(scored.computed, scored.precision))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(1)  # who deals out is gone
    except CerankError as error:
        failure = _Failed(error.what, error.where, error.hint, error.code)
    except Exception as error:  # noqa: BLE001 - the top of the process: whatever it was, the user must hear of it
        os.write(2, traceback.format_exc().encode("utf-8", "backslashreplace"))
        failure = _Failed(f"{type(error).__name__}: {error}"[:2000])
    else:
        return
    with contextlib.suppress(OSError):  # who deals out is gone
        say(failure)
