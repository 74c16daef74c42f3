"""The models of a stage: the files of its first weights, and what it saves of those that it trained."""

from __future__ import annotations

import copy
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch

from cerank.core.metrics import Position
from cerank.files import manifests
from cerank.models import adapters, cross_encoder
from cerank.models.bases import BaseFiles, fingerprint, locate
from cerank.models.cross_encoder import CrossEncoder
from cerank.models.load_model import load_model
from cerank.models.lora.adapter_training import take_adapter, write_adapter
from cerank.models.lora.quantized_base import quantize_base
from cerank.recipes.schema import VALIDATION_LOSS, Stage, kept_name
from cerank.tokenization.tokens import TokenLimits
from cerank.training import checkpoints, stage_summary
from cerank.training.checkpoints import BestStep
from cerank.training.stage_summary import StageSummary, WeightChange
from cerank.worker.run_context import RunContext
from cerank.worker.run_inputs import RunInputs

ADAPTER_FOLDER = Path("adapter")  # in the folder of a stage's model, where both are saved


class Trained(NamedTuple):
    """What a training left in memory."""

    encoder: CrossEncoder
    tokenizer: Any
    start: BaseFiles  # files of the first weights
    before: dict[str, torch.Tensor]  # those weights, on the CPU
    step: int  # whose weights the encoder has; 0 where it may be given those of any step, or their average

    def has_weights_of(self, step: int) -> bool:
        """Return whether the encoder has the weights of a step, so that they need not be read."""
        return self.step == step


class StageModels:
    """Finds the first weights of a stage, and saves what it trained.

    Args:
        context: the run's.
        run_inputs: what the run reads.
        index: position of the stage in the recipe's chain, from 0.
        name: name of the stage.
        stage: its settings.

    Attributes:
        final: folder of the model that the stage hands on.
    """

    def __init__(self, context: RunContext, run_inputs: RunInputs, index: int, name: str, stage: Stage) -> None:
        self._context, self._inputs, self._index = context, run_inputs, index
        self._name, self._stage = name, stage
        self.final = context.folder.final(index, name)

    def start(self) -> BaseFiles:
        """Return the files of the stage's first weights: the previous stage's model, or the base."""
        if self._index == 0:
            return self._inputs.base()
        name = self._context.plan.recipe.chain[self._index - 1]
        folder = self._context.folder.final(self._index - 1, name)
        if self._stage.adapter.is_lora and self._stage.adapter.start == "continue":
            inside = folder / ADAPTER_FOLDER
            return locate(str(inside if inside.is_dir() else folder), fetch=False)
        if adapters.is_adapter(folder):
            return locate(str(folder), fetch=False)
        return BaseFiles(name, folder, cross_encoder.CheckpointConfig.read(folder).pooling, fingerprint(folder))

    def load(
        self, files: BaseFiles, pooling: str, *, keeps_start: bool
    ) -> tuple[CrossEncoder, dict[str, torch.Tensor]]:
        """Return the model that the stage trains, and a copy of its first weights; both on the CPU.

        Args:
            files: the files of the first weights.
            pooling: how the model pools.
            keeps_start: whether to copy the weights; else there are none in what is returned.
        """
        adapter, precision, seed = self._stage.adapter, str(self._stage.precision), self._context.plan.recipe.seed
        encoder = load_model(files, pooling, seed)
        before = {key: value.detach().clone() for key, value in encoder.state_dict().items()} if keeps_start else {}
        if adapter.is_lora and adapter.start == "continue":
            encoder = load_model(files, pooling, seed, merges=False, spec=adapter, precision=precision)
        else:
            quantize_base(encoder, adapter, precision, f"stages.{self._name}.adapter")
        return encoder, before

    def save(self, folder: Path, trained: Trained, summary: StageSummary) -> StageSummary:
        """Write the weights of the summary's kept step, completely or not at all: whole, as an adapter, or both.

        Args:
            folder: folder of the model.
            trained: what the training left.
            summary: summary of the stage, but for how far these weights moved.

        Returns:
            The whole summary, as it is written beside the model.
        """
        limits, saves = TokenLimits.of_stage(self._stage), self._stage.adapter.save
        # taking an adapter out changes a model for good, so that all but the final one are made of copies
        is_copy = folder != self.final and trained.encoder.adapter is not None
        encoder = copy.deepcopy(trained.encoder) if is_copy else trained.encoder
        if not trained.has_weights_of(summary.kept_step):
            place = self._context.folder.checkpoint(self._index, self._name, summary.kept_step)
            checkpoints.load_weights(place, encoder, averaged=self._stage.hands_on_average)
        adapter = take_adapter(encoder)  # and the model is an ordinary one again
        summary = msgspec.structs.replace(summary, weight_change=weight_change(trained.before, encoder))
        with manifests.checksummed_folder(folder) as inside:
            if adapter is None or saves != "adapter":
                cross_encoder.save(encoder, trained.tokenizer, inside, limits)
            if adapter is not None and saves != "merged":
                within = Path() if saves == "adapter" else ADAPTER_FOLDER
                base, sha256 = self._base_of_adapter(trained.start, folder / within)
                write_adapter(encoder, adapter, inside / within, limits, base=base, base_sha256=sha256)
            stage_summary.write(inside, summary)
        return summary

    def keep_best(self, trained: Trained, summary: StageSummary, measure: str, best: BestStep) -> None:
        """Keep the weights that were best by a measure beside those that the stage hands on.

        Args:
            trained: what the training left.
            summary: summary of the stage.
            measure: the measure.
            best: the validation that was best by it.
        """
        folder = self._context.folder.best_model(self._index, self._name, measure)
        if folder.is_dir():  # the run was killed between this model and the next
            return
        value = -best.value if measure == VALIDATION_LOSS else best.value
        changes = {"kept_step": best.step, "measure": measure, "best": value, "best_step": best.step, "end": value}
        self.save(folder, trained, msgspec.structs.replace(summary, start=None, **changes))
        what = f"{measure} {value:.4f} at step {best.step}, as {kept_name(self._name, measure)}"
        self._context.log.event("best weights kept", f"{self._name}: {what}", Position(self._index, summary.steps))

    def _base_of_adapter(self, start: BaseFiles, folder: Path) -> tuple[str, str]:
        """Return name and fingerprint of what the stage's adapter lies over, as seen from the adapter's folder.

        Other stages of the run are named by the way from there, so that a copy of the run's folder is complete.
        """
        if self._stage.adapter.start == "continue" and start.adapter is not None:
            name, sha256 = start.adapter.base, start.adapter.base_sha256
        elif self._index == 0:
            return self._context.plan.recipe.base, start.sha256
        else:
            name, sha256 = str(start.folder), start.sha256
        is_ours = Path(name).is_absolute() and Path(name).is_relative_to(self._context.folder.path.resolve())
        return os.path.relpath(name, folder.resolve()) if is_ours else name, sha256


def weight_change(before: dict[str, torch.Tensor], encoder: CrossEncoder) -> WeightChange:
    """Return how far the weights moved, as a fraction of their norm."""
    moved = total = 0.0
    changed = count = 0
    for key, trained in encoder.state_dict().items():
        value = trained.cpu()
        if value.is_floating_point():
            moved += _squares(value - before[key])
            total += _squares(before[key])
            changed += int((value != before[key]).sum())
            count += value.numel()
    return WeightChange(math.sqrt(moved / total) if total else 0.0, changed / count if count else 0.0)


def _squares(values: torch.Tensor) -> float:
    """Return the sum of squares, computed in float64."""
    return float(values.double().pow(2).sum())
