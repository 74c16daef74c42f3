"""Run sentence-transformers on the same work, to compare its speed with cerank's; used if it is installed.

Invariant: it gets the same texts, weights, lengths, groups and threads; on a CPU its own defaults for everything else,
on a GPU the attention and batch size with which it is fastest.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from cerank.bench.own_workloads import LIMITS, Timing, benchmark_groups
from cerank.bench.text_samples import TextSample, generated_sample
from cerank.core.groups import Group
from cerank.errors import MissingError
from cerank.kernels.attention import installed_flash_attn
from cerank.kernels.processor import synchronize
from cerank.machine.devices import gpu_joules, joules_between
from cerank.models.bases import BaseFiles
from cerank.recipes.schema import Stage

BATCH_SIZE = 32  # sentence-transformers' default number of pairs in a batch


def can_rerank() -> bool:
    """Return whether sentence-transformers is installed."""
    return importlib.util.find_spec("sentence_transformers") is not None


def can_train() -> bool:
    """Return whether the packages that its trainer needs are installed as well."""
    return can_rerank() and all(importlib.util.find_spec(name) for name in ("datasets", "accelerate"))


class Variant(msgspec.Struct, frozen=True):
    """One way to run sentence-transformers."""

    attention: str = ""  # "sdpa" or "flash_attention_2"; "" takes the library's default
    batch_size: int = BATCH_SIZE

    def __str__(self) -> str:
        return f"{self.attention or 'defaults'}, batches of {self.batch_size}"


def variants(device: str) -> tuple[Variant, ...]:
    """Return the ways among which its best is looked for: its defaults on a CPU, attention and batch size on a GPU."""
    if not device.startswith("cuda"):
        return (Variant(),)
    attentions = ["sdpa", *(["flash_attention_2"] if installed_flash_attn() is not None else [])]
    return tuple(Variant(attention, size) for attention in attentions for size in (32, 128, 512))


def _load_model(files: BaseFiles, device: str, kind: str, attention: str = "") -> Any:
    import torch
    from sentence_transformers import CrossEncoder

    if files.pooling == "product":
        raise MissingError("sentence-transformers has no such pooling", where=files.name)
    options: dict[str, Any] = {"dtype": torch.bfloat16 if kind == "bf16" else torch.float32}
    if attention:
        options["attn_implementation"] = attention
    return CrossEncoder(
        str(files.folder), device=device, max_length=LIMITS.max_length, model_kwargs=options, local_files_only=True
    )


class SentenceTransformers:
    """Scores by `CrossEncoder.predict`; bf16 loads the weights so, as its documentation has it.

    Args:
        files: files of the checkpoint to score with.
        device: device to score on, such as "cpu" or "cuda:0".
        precision: "fp32" or "bf16".
        variant: attention and batch size; None takes the fastest of `variants` on generated texts.
    """

    def __init__(self, files: BaseFiles, device: str, precision: str, variant: Variant | None = None) -> None:
        choices = variants(device) if variant is None else (variant,)
        models = {choice.attention: _load_model(files, device, precision, choice.attention) for choice in choices}
        self.variant = choices[0]
        self._model = models[self.variant.attention]
        if len(choices) > 1:
            self.variant = min(choices, key=lambda choice: self._seconds(models[choice.attention], choice, device))
            self._model = models[self.variant.attention]

    def score(self, sample: TextSample) -> list[float]:
        """Return the scores of `sample.texts()`, in order."""
        return self._predict(self._model, self.variant, sample)

    def _seconds(self, model: Any, variant: Variant, device: str) -> float:
        """Return the seconds that a few thousand pairs take, after some to warm up."""
        self._predict(model, variant, generated_sample(variant.batch_size))
        synchronize(device)
        started = time.perf_counter()
        self._predict(model, variant, generated_sample(2048))
        synchronize(device)
        return time.perf_counter() - started

    def _predict(self, model: Any, variant: Variant, sample: TextSample) -> list[float]:
        from torch.nn import Identity

        scores = model.predict(
            sample.texts(), batch_size=variant.batch_size, show_progress_bar=False, activation_fn=Identity()
        )
        return [float(score) for score in scores]


class SentenceTransformersTraining:
    """Trains by `CrossEncoderTrainer` on the same groups, with the loss nearest to the stage's.

    For LCE that is ListNet, which with one positive differs only in the positive's own place under the softmax of the
    labels; for RankNet its RankNet. Mixed precision is its `bf16=True`.
    """

    def __init__(self, files: BaseFiles, sample: TextSample, stage: Stage, device: str) -> None:
        self._sample, self._stage, self._device = sample, stage, device
        self._model = _load_model(files, device, "fp32")

    def train(self, steps: int) -> Timing:
        """Train `steps` steps after one to warm up, and return the time of the `steps` alone."""
        from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments, losses

        stage = self._stage
        kind = losses.RankNetLoss if stage.loss == "ranknet" else losses.ListNetLoss
        clock = _step_timer(self._device)
        groups = benchmark_groups(self._sample, stage, steps + 1)
        with TemporaryDirectory() as folder:
            arguments = CrossEncoderTrainingArguments(
                output_dir=folder,
                max_steps=steps + 1,
                per_device_train_batch_size=stage.groups_per_step,
                learning_rate=stage.learning_rate,
                lr_scheduler_type="constant",
                bf16=stage.precision == "bf16",
                use_cpu=self._device == "cpu",
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
            )
            trainer = CrossEncoderTrainer(
                model=self._model,
                args=arguments,
                train_dataset=self._rows(groups),
                loss=kind(self._model),
                callbacks=[clock],
            )
            with contextlib.redirect_stdout(sys.stderr):  # it prints a summary, and stdout is for data
                trainer.train()
        # it shuffles the groups, so the warm-up step is like any other
        pairs = round(sum(map(len, groups)) * steps / (steps + 1))
        return Timing(pairs, clock.times[-1] - clock.times[0], joules=joules_between(*clock.joules))

    def _rows(self, groups: Sequence[Group]) -> Any:
        from datasets import Dataset

        sample = self._sample
        return Dataset.from_dict(
            {
                "query": [sample.queries[group.query_id] for group in groups],
                "docs": [[sample.documents[doc] for doc in group.doc_ids] for group in groups],
                "labels": [[float(label) for label in group.labels] for group in groups],
            }
        )


def _step_timer(device: str) -> Any:
    """Return a callback of transformers' trainer that takes the time at the end of the first step and of the last."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []
            self.joules: list[float | None] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:  # noqa: ARG002 - the callback's
            if state.global_step in {1, state.max_steps}:
                synchronize(device)
                self.joules.append(gpu_joules(device))
                self.times.append(time.perf_counter())

    return Clock()
