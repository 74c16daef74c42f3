"""Save a stage's weights, optimizer and position, and resume from the newest checkpoint whose checksums fit.

Invariant: no state of a random generator or a loader is saved; a position is two integers (see core/seeds.py) and, in a
stage with a filter, what the filter has learned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from cerank.core.ranks import Ranks
from cerank.errors import RunFailedError
from cerank.files import disk, json_records, manifests
from cerank.models.cross_encoder import CrossEncoder
from cerank.training.filtering.filter_state import FilterState
from cerank.training.optimization.weight_average import WeightAverage
from cerank.training.weight_shares import WeightShares, read_shares

_AVERAGE = "average.safetensors"  # in a checkpoint: the average of the trained weights
_MICROBATCHES = "microbatches.json"  # beside the checkpoints
NEWEST_KEPT = 2  # newest checkpoints kept beside the best: one to use, one in case it is damaged


class BestStep(msgspec.Struct, frozen=True):
    """The validation that was best by one measure."""

    step: int
    value: float  # larger is better: a loss is negated


class TrainingState(msgspec.Struct, frozen=True):
    """Where a stage is, and the outcome of its validations so far."""

    step: int = 0
    best_step: int = 0  # 0: no validation yet
    best_value: float = 0.0
    waited: int = 0  # validations since the best
    skipped: int = 0  # steps without an update, because a loss or gradient was not finite
    stopped_early: bool = False
    microbatch: int = 0  # largest number of tokens at once since memory was short; 0: the stage's own
    start_value: float | None = None  # before the first step; None where an earlier release began the stage
    last_value: float | None = None  # of the newest validation
    filter: FilterState | None = None  # of a stage with a filter
    bests: dict[str, BestStep] = {}  # by the measures whose best weights are kept beside the stage's own choice

    def after_step(self, step: int, microbatch: int, filter_state: FilterState | None) -> TrainingState:
        """Return the state after a step.

        Args:
            step: its number.
            microbatch: tokens at once, where memory allowed fewer than the stage has; else 0.
            filter_state: state of the stage's filter, if it has one.
        """
        return msgspec.structs.replace(self, step=step, microbatch=microbatch, filter=filter_state)

    def after_validation(self, value: float, patience: int) -> TrainingState:
        """Return the state after a validation gave `value`; larger is better, and an equal value is no improvement."""
        if self.best_step == 0 or value > self.best_value:
            return msgspec.structs.replace(self, best_step=self.step, best_value=value, last_value=value, waited=0)
        waited = self.waited + 1
        return msgspec.structs.replace(self, last_value=value, waited=waited, stopped_early=0 < patience <= waited)

    def with_measures(self, values: Mapping[str, float]) -> TrainingState:
        """Return the state after a validation gave these values; larger is better, and the first of equal ones stays.

        A value that is not a number is never the best.
        """
        better = {
            measure: BestStep(self.step, value)
            for measure, value in values.items()
            if not math.isnan(value) and (measure not in self.bests or value > self.bests[measure].value)
        }
        return msgspec.structs.replace(self, bests=self.bests | better) if better else self

    @property
    def needed_steps(self) -> set[int]:
        """Return the steps whose weights the stage may hand on or keep; without 0, which is no checkpoint."""
        return {self.best_step, *(best.step for best in self.bests.values())} - {0}


def folder_name(step: int) -> str:
    """Return the name of a checkpoint's folder; names sort by step up to a million."""
    return f"step-{step:06d}"


class Snapshot(msgspec.Struct, frozen=True):
    """The tensors of a checkpoint, by name, on the CPU; with an adapter, only what is trained."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    average: dict[str, Tensor] = {}  # of the trained weights, where the stage keeps one


def take_snapshot(
    shares: WeightShares,
    optimizer: Optimizer,
    device: torch.device,
    *,
    copies: bool,
    average: WeightAverage | None = None,
) -> Snapshot:
    """Return weights, their average and the optimizer's state on the CPU.

    With `copies` training may go on before they are written. Where the weights are divided, all processes call this,
    and the first one gets them whole, gathered one by one.

    From a GPU they come in one go, into pinned memory, and are waited for once.
    """

    def on_cpu(value: Tensor) -> Tensor:
        value = value.detach()
        if value.device.type != "cuda":
            return value.clone().contiguous() if copies else value.cpu().contiguous()
        return torch.empty(value.shape, dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)

    def whole(name: str, value: Tensor) -> Tensor:
        return on_cpu(shares.whole(name, value.detach()))

    weights = {name: whole(name, value) for name, value in shares.to_save().items()}
    moments = {
        f"{key}/{name}": whole(name, value)
        for name, weight in shares.trained.items()
        for key, value in optimizer.state[weight].items()
    }
    averages = {name: whole(name, value) for name, value in average.tensors.items()} if average is not None else {}
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    return Snapshot(weights, moments, averages)


def write(folder: Path, snapshot: Snapshot, state: TrainingState) -> None:
    """Write the checkpoint of `state.step` under `folder`, whole or not at all, and remove those no longer needed."""
    with manifests.checksummed_folder(folder / folder_name(state.step)) as new:
        save_file(snapshot.weights, new / "model.safetensors")
        save_file(snapshot.optimizer, new / "optimizer.safetensors")
        if snapshot.average:
            save_file(snapshot.average, new / _AVERAGE)
        (new / "position.json").write_bytes(msgspec.json.encode(state))
    newest = sorted(_steps(folder))[-NEWEST_KEPT:]
    needed = {*newest, *(best for step in newest for best in _needed_by(folder / folder_name(step)))}
    for step in set(_steps(folder)) - needed:
        disk.discard(folder / folder_name(step))


class CheckpointWriter:
    """Writes checkpoints: at once, or beside the training, one at a time.

    Args:
        folder: folder of the stage's checkpoints.
        device: device that the model is on.
        on_saved: called by the trainer's own thread with the state of each checkpoint that is on disk.
        in_thread: whether hashing and writing go on while the next steps are computed.
        ranks: the processes of the run, of which only the first writes.
    """

    def __init__(
        self, folder: Path, device: torch.device, on_saved: Callable[[TrainingState], None], *, in_thread: bool,
        ranks: Ranks | None = None,
    ) -> None:  # fmt: skip
        self._folder, self._device, self._on_saved = folder, device, on_saved
        self._ranks = ranks or Ranks()
        self._writes = self._ranks.is_first
        self._thread = ThreadPoolExecutor(1, "checkpoint") if in_thread else None
        self._pending: tuple[TrainingState, Future[None]] | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            if self._thread is not None:
                self._thread.shutdown()

    def save(
        self, shares: WeightShares, optimizer: Optimizer, state: TrainingState, before: Callable[[], None],
        average: WeightAverage | None = None,
    ) -> None:  # fmt: skip
        """Save a checkpoint, unless there is nothing to save yet or it is on disk already; `before` is called first."""
        self.wait()
        if not (self._writes or shares.is_divided) or not state.step:
            return
        is_saved = (self._folder / folder_name(state.step)).exists()
        if self._ranks.agree(is_saved) if shares.is_divided else is_saved:  # others look sooner or later than the first
            return
        if self._writes:
            before()
        snapshot = take_snapshot(shares, optimizer, self._device, copies=self._thread is not None, average=average)
        if not self._writes:
            return
        if self._thread is None:
            write(self._folder, snapshot, state)
            self._on_saved(state)
        else:
            self._pending = state, self._thread.submit(write, self._folder, snapshot, state)

    def wait(self) -> None:
        """Return once everything that was to be saved is on disk; an error of the disk is raised here."""
        if self._pending is not None:
            (state, written), self._pending = self._pending, None
            written.result()
            self._on_saved(state)


def resume(
    folder: Path, shares: WeightShares, optimizer: Optimizer, reject: Callable[[str], None],
    average: WeightAverage | None = None,
) -> TrainingState:  # fmt: skip
    """Load the newest valid checkpoint under `folder` into weights, optimizer and average; return its state.

    Return `TrainingState()` if there is none.

    A damaged checkpoint is renamed to *.bad and `reject` is called with the reason; then the one before is tried.
    """
    for step in sorted(_steps(folder), reverse=True):
        checkpoint = folder / folder_name(step)
        try:
            state = _verified_state(folder, step)
        except disk.DamagedError as error:
            disk.quarantine(checkpoint)
            reject(str(error))
            continue
        # not before it is certain that this checkpoint is used: to start anew needs the weights that the model has
        load_shares(checkpoint, shares)
        _restore(read_shares(checkpoint / "optimizer.safetensors", shares), shares.trained, optimizer)
        if average is not None:
            average.load(_average_in(checkpoint, shares))
        return state
    return TrainingState()


def record_microbatch(folder: Path, step: int, tokens: int) -> None:
    """Record that from `step` on (0: before training) at most `tokens` tokens go through the model at once."""
    disk.make_folder(folder)
    recorded = {str(number): size for number, size in recorded_microbatches(folder).items() if number <= step}
    disk.write(folder / _MICROBATCHES, msgspec.json.encode(recorded | {str(step): tokens}))


def recorded_microbatches(folder: Path) -> dict[int, int]:
    """Return step -> largest number of tokens at once from that step on; {} where memory never was short.

    A file that cannot be read counts as none: the sizes decide rounding alone, and memory will be short again.
    """
    try:
        return json_records.decode((folder / _MICROBATCHES).read_bytes(), dict[int, int])
    except (OSError, ValueError):
        return {}


def _verified_state(folder: Path, step: int) -> TrainingState:
    """Return the state of a checkpoint if its files and those of the best checkpoints it names fit their checksums."""
    manifests.verify_folder(folder / folder_name(step))
    state = _state(folder / folder_name(step))
    for best in sorted(state.needed_steps - {step}):
        manifests.verify_folder(folder / folder_name(best))
    return state


def load_weights(folder: Path, model: CrossEncoder, *, averaged: bool = False) -> None:
    """Load the weights of a checkpoint into a model; arguments and errors as for `load_shares`."""
    load_shares(folder, WeightShares(model), averaged=averaged)


def load_shares(folder: Path, shares: WeightShares, *, averaged: bool = False) -> None:
    """Load of the weights of a checkpoint what this process holds of them.

    Args:
        folder: the checkpoint's.
        shares: what it holds.
        averaged: whether to load the average of the weights in place of those that are trained.

    Raises:
        DamagedError: a file does not fit its checksum.
        RunFailedError: the weights are those of another model.
    """
    manifests.verify_folder(folder)
    values = read_shares(folder / "model.safetensors", shares)
    try:
        shares.load(values | (_average_in(folder, shares) if averaged else {}))
    except RuntimeError as error:
        raise RunFailedError("the checkpoint is of another model", where=str(folder)) from error


def _average_in(folder: Path, shares: WeightShares) -> dict[str, Tensor]:
    """Return the average of weights in a checkpoint; {} where there is none, as before the first update."""
    path = folder / _AVERAGE
    return read_shares(path, shares) if path.exists() else {}


def _needed_by(folder: Path) -> set[int]:
    """Return the best steps that a checkpoint names; damage to it is found when it is resumed from, not here."""
    try:
        return _state(folder).needed_steps
    except (OSError, ValueError):  # msgspec's errors are ValueErrors
        return set()


def _state(folder: Path) -> TrainingState:
    return json_records.decode((folder / "position.json").read_bytes(), TrainingState)


def _steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    names = [path.name.removeprefix("step-") for path in folder.iterdir() if path.name.startswith("step-")]
    return [int(name) for name in names if name.isdecimal()]


def _restore(saved: Mapping[str, Tensor], trained: Mapping[str, Tensor], optimizer: Optimizer) -> None:
    for key, value in saved.items():
        kind, name = key.split("/", 1)
        weight = trained[name]
        # torch keeps Adam's own count on the CPU, unless it is fused on a GPU: then with its parameter
        device = weight.device if kind != "step" or optimizer.defaults.get("fused") else torch.device("cpu")
        optimizer.state[weight][kind] = value.to(device)
