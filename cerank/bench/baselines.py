"""Run sentence-transformers on the same work, to compare its speed with cerank's; used if it is installed.

Invariant: it gets the same texts, weights, lengths, groups and threads, and its own defaults for everything else.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

from cerank.bench.own_workloads import LIMITS, Timing, benchmark_groups
from cerank.bench.text_samples import TextSample
from cerank.core.groups import Group
from cerank.errors import MissingError
from cerank.kernels.processor import synchronize
from cerank.models.bases import BaseFiles
from cerank.recipes.schema import Stage

BATCH_SIZE = 32  # sentence-transformers' default number of pairs in a batch


def can_rerank() -> bool:
    """Return whether sentence-transformers is installed."""
    return importlib.util.find_spec("sentence_transformers") is not None


def can_train() -> bool:
    """Return whether the packages that its trainer needs are installed as well."""
    return can_rerank() and all(importlib.util.find_spec(name) for name in ("datasets", "accelerate"))


def _load_model(files: BaseFiles, device: str, kind: str) -> Any:
    import torch
    from sentence_transformers import CrossEncoder

    if files.pooling == "product":
        raise MissingError("sentence-transformers has no such pooling", where=files.name)
    options = {"dtype": torch.bfloat16 if kind == "bf16" else torch.float32}
    return CrossEncoder(
        str(files.folder), device=device, max_length=LIMITS.max_length, model_kwargs=options, local_files_only=True
    )


class SentenceTransformers:
    """Scores by `CrossEncoder.predict` with default batches; bf16 loads the weights so, as its documentation has it."""

    def __init__(self, files: BaseFiles, device: str, precision: str) -> None:
        self._model = _load_model(files, device, precision)

    def score(self, sample: TextSample) -> list[float]:
        """Return the scores of `sample.texts()`, in order."""
        from torch.nn import Identity

        scores = self._model.predict(
            sample.texts(), batch_size=BATCH_SIZE, show_progress_bar=False, activation_fn=Identity()
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
        return Timing(pairs, clock.times[-1] - clock.times[0])

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
    """Return a callback of transformers' trainer that takes the time at the end of each step."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            synchronize(device)
            self.times.append(time.perf_counter())

    return Clock()
