"""Checkpoints of a stage: weights, optimizer and position in a sealed folder; the newest sound one is taken up again.

Invariant: no state of a random generator or a loader is saved; a position is two integers (see core/seeds.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import AdamW

from cerank.errors import RunFailedError
from cerank.files import disk, manifests
from cerank.models.cross_encoder import CrossEncoder

KEPT = 2  # newest checkpoints that stay beside the best: one to use, one in case it is damaged


class State(msgspec.Struct, frozen=True):
    """Where a stage is, and what its validations said so far."""

    step: int = 0
    best_step: int = 0  # 0: no validation yet
    best_value: float = 0.0
    waited: int = 0  # validations since the best
    skipped: int = 0  # steps whose update was left out because something was not finite
    stopped_early: bool = False
    microbatch: int = 0  # tokens through the model at once since memory was short; 0: as the stage says

    def after_validation(self, value: float, patience: int) -> State:
        """The state once a validation at `step` gave `value`; larger is better, an equal one is no improvement."""
        if self.best_step == 0 or value > self.best_value:
            return msgspec.structs.replace(self, best_step=self.step, best_value=value, waited=0)
        waited = self.waited + 1
        return msgspec.structs.replace(self, waited=waited, stopped_early=0 < patience <= waited)


def name_of(step: int) -> str:
    """The folder of the checkpoint at a step; sorts by step up to a million."""
    return f"step-{step:06d}"


def save(folder: Path, model: CrossEncoder, optimizer: AdamW, state: State) -> None:
    """Writes the checkpoint of `state.step` under `folder`, whole or not at all; removes those no longer needed."""
    with manifests.checksummed_folder(folder / name_of(state.step)) as inside:
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()},
            inside / "model.safetensors",
        )
        save_file(_moments(model, optimizer), inside / "optimizer.safetensors")
        (inside / "position.json").write_bytes(msgspec.json.encode(state))
    newest = sorted(_steps(folder))[-KEPT:]
    needed = {*newest, *(_best_of(folder / name_of(step)) for step in newest)}
    for step in set(_steps(folder)) - needed:
        disk.discard(folder / name_of(step))


def resume(folder: Path, model: CrossEncoder, optimizer: AdamW, reject: Callable[[str], None]) -> State:
    """Loads the newest sound checkpoint under `folder` into model and optimizer; `State()` where there is none.

    A damaged one is moved aside and `reject` is told, then the one before is tried.
    """
    for step in sorted(_steps(folder), reverse=True):
        found = folder / name_of(step)
        try:
            state = _sound(folder, step)
        except disk.DamagedError as error:
            disk.quarantine(found)
            reject(str(error))
            continue
        weights(found, model)  # not before it is certain that this one is taken: an earlier start needs other weights
        _restore(load_file(found / "optimizer.safetensors"), model, optimizer)
        return state
    return State()


def _sound(folder: Path, step: int) -> State:
    """The state of a checkpoint that is what was sealed, and so is the best one it knows of; DamagedError otherwise."""
    manifests.verify_folder(folder / name_of(step))
    state = _state(folder / name_of(step))
    if state.best_step not in {0, step}:
        manifests.verify_folder(folder / name_of(state.best_step))
    return state


def weights(folder: Path, model: CrossEncoder) -> None:
    """Loads a sealed checkpoint's weights into `model`.

    Raises:
        DamagedError: a file is not what was sealed.
        RunFailedError: they are another model's.
    """
    manifests.verify_folder(folder)
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except RuntimeError as error:
        raise RunFailedError("the checkpoint is of another model", where=str(folder)) from error


def _best_of(folder: Path) -> int:
    """The best step a checkpoint knows of; its own damage is found when it is resumed from, not here."""
    try:
        return _state(folder).best_step
    except (OSError, ValueError):  # msgspec's errors are ValueErrors
        return 0


def _state(folder: Path) -> State:
    return msgspec.json.decode((folder / "position.json").read_bytes(), type=State)


def _steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    names = [path.name.removeprefix("step-") for path in folder.iterdir() if path.name.startswith("step-")]
    return [int(name) for name in names if name.isdecimal()]


def _trained(model: CrossEncoder) -> dict[str, torch.nn.Parameter]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def _moments(model: CrossEncoder, optimizer: AdamW) -> dict[str, Tensor]:
    """The optimizer's state by parameter name, as safetensors keeps it."""
    out = {}
    for name, parameter in _trained(model).items():
        for key, value in optimizer.state[parameter].items():
            out[f"{key}/{name}"] = value.detach().cpu().contiguous().clone()
    return out


def _restore(saved: dict[str, Tensor], model: CrossEncoder, optimizer: AdamW) -> None:
    for key, value in saved.items():
        kind, name = key.split("/", 1)
        parameter = _trained(model)[name]
        # Adam's own count stays where torch keeps it: on the CPU unless fused on a GPU, with its parameter there
        place = parameter.device if kind != "step" or optimizer.defaults.get("fused") else torch.device("cpu")
        optimizer.state[parameter][kind] = value.to(place)
