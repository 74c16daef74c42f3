"""Those that the benchmark holds cerank against: sentence-transformers, and loops of one's own.

Each is written as its own documentation or repository has it, and gets the same texts, weights, groups and threads.
lightning-ir 0.0.6 is not among them: with transformers 5 it can make no tokenizer (it takes the second of two classes
from TOKENIZER_MAPPING, which holds one now).
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from cerank.data.bases import BaseFiles
from cerank.data.samples import Sample
from cerank.domain.recipe import Stage
from cerank.learn.peers import SentenceTransformers, SentenceTransformersTraining, can_rerank, can_train
from cerank.learn.speed import MAX_LENGTH, Own, OwnTraining, Timed, groups_of, synchronized

PLAIN_BATCH = 32
PAPER_BATCH = 400  # pairs the paper's code pads together when it re-ranks


class Plain:
    """A loop over batches in the order of the list, padded to the longest, as transformers' documentation shows it."""

    def __init__(self, files: BaseFiles, device: str, precision: str, batch: int = PLAIN_BATCH) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(files.folder)
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        self._model = AutoModelForSequenceClassification.from_pretrained(files.folder, dtype=kind).to(device).eval()
        self._device, self._batch, self._autocast = device, batch, False

    def score(self, sample: Sample) -> list[float]:
        texts, out = sample.texts(), []
        for start in range(0, len(texts), self._batch):
            queries, documents = zip(*texts[start : start + self._batch], strict=True)
            inputs = self._tokenizer(
                list(queries),
                list(documents),
                padding=True,
                truncation=True,
                max_length=MAX_LENGTH,
                return_tensors="pt",
            ).to(self._device)
            with torch.no_grad(), torch.autocast(self._device.partition(":")[0], torch.bfloat16, self._autocast):
                out += self._model(**inputs).logits.squeeze(-1).float().tolist()
        return out


class Paper(Plain):
    """The style of the paper's code: 400 pairs padded together under bf16 autocast."""

    def __init__(self, files: BaseFiles, device: str, precision: str) -> None:
        super().__init__(files, device, "fp32", PAPER_BATCH)
        self._autocast = precision == "bf16"


class PaperTraining:
    """The style of the paper's code: pandas asked for each item, padding to a step's longest, bf16 autocast."""

    def __init__(self, files: BaseFiles, sample: Sample, stage: Stage, device: str) -> None:
        import pandas

        self._tokenizer = AutoTokenizer.from_pretrained(files.folder)
        self._model = AutoModelForSequenceClassification.from_pretrained(files.folder, dtype=torch.float32).to(device)
        self._sample, self._stage, self._device = sample, stage, device
        rows = [(query, doc, rank) for query, docs in sample.lists.items() for rank, doc in enumerate(docs)]
        self._run = pandas.DataFrame(rows, columns=["query_id", "doc_id", "rank"])
        self._queries = pandas.DataFrame(sample.queries.items(), columns=["query_id", "text"])
        self._documents = pandas.DataFrame(sample.documents.items(), columns=["doc_id", "text"])

    def _item(self, query: str, step: int) -> tuple[str, list[str]]:
        run = self._run[self._run["query_id"] == query]
        negatives = run[run["rank"] > 0].sample(self._stage.group_size - 1, random_state=step)
        ids = [run.iloc[0]["doc_id"], *negatives["doc_id"]]
        text = self._queries.loc[self._queries["query_id"] == query, "text"].item()
        return text, [self._documents.loc[self._documents["doc_id"] == doc, "text"].item() for doc in ids]

    def train(self, steps: int) -> Timed:
        stage, model, times = self._stage, self._model.train(), []
        optimizer = torch.optim.AdamW(model.parameters(), lr=stage.learning_rate)
        groups = groups_of(self._sample, stage, steps + 1)
        for step in range(steps + 1):
            part = groups[step * stage.groups_per_step : (step + 1) * stage.groups_per_step]
            pairs = [(text, doc) for group in part for text, docs in [self._item(group.query_id, step)] for doc in docs]
            queries, documents = map(list, zip(*pairs, strict=True))
            inputs = self._tokenizer(
                queries, documents, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
            ).to(self._device)
            with torch.autocast(self._device.partition(":")[0], torch.bfloat16):
                scores = model(**inputs).logits.view(len(part), -1)
                loss = cross_entropy(scores.float(), torch.zeros(len(part), dtype=torch.long, device=scores.device))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            synchronized(self._device)
            times.append(time.perf_counter())
        return Timed(steps * stage.groups_per_step * stage.group_size, times[-1] - times[0])


def rerankers(precision: str) -> dict[str, Any]:
    """Name -> class of every contender that is installed, cerank first."""
    found: dict[str, Any] = {"cerank": Own}
    if can_rerank():
        found["sentence-transformers"] = SentenceTransformers
    found["plain transformers"] = Plain
    if precision == "bf16":
        found["paper's style"] = Paper
    return found


def learners(precision: str) -> dict[str, Any]:
    """Name -> class of every contender that trains here, cerank first."""
    found: dict[str, Any] = {"cerank": OwnTraining}
    if can_train():
        found["sentence-transformers"] = SentenceTransformersTraining
    if precision == "bf16":
        found["paper's style"] = PaperTraining
    return found
