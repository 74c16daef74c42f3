"""Those that the benchmark holds cerank against: sentence-transformers, lightning-ir, and loops of one's own.

Each is written as its own documentation or repository has it, and gets the same texts, weights, groups and threads.
lightning-ir 0.0.6 sits in an environment of its own (see `lightning_peer.py`): with transformers 5, which cerank asks
for, it can make no tokenizer (it takes the second of two classes from TOKENIZER_MAPPING, which holds one now).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from cerank.bench.baselines import can_rerank, can_train
from cerank.bench.interleaved_rounds import TaskKind
from cerank.bench.own_workloads import (
    LIMITS,
    Timing,
    benchmark_groups,
    benchmark_sampler,
    packing_seconds,
    synchronize,
)
from cerank.bench.text_samples import TextSample
from cerank.models import cross_encoder
from cerank.models.bases import BaseFiles
from cerank.recipes.schema import Stage
from cerank.tokenization.tokens import PairTokenizer, TokenLimits
from cerank.training.batches import encode_groups
from cerank.training.losses import LOSSES
from cerank.training.trainer import Trainer

PLAIN_BATCH = 32
PAPER_BATCH = 400  # pairs the paper's code pads together when it re-ranks


class Plain:
    """A loop over batches in the order of the list, padded to the longest, as transformers' documentation shows it."""

    def __init__(self, files: BaseFiles, device: str, precision: str, batch: int = PLAIN_BATCH) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(files.folder)
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        self._model = AutoModelForSequenceClassification.from_pretrained(files.folder, dtype=kind).to(device).eval()
        self._device, self._batch, self._autocast = device, batch, False

    def score(self, sample: TextSample) -> list[float]:
        texts, out = sample.texts(), []
        for start in range(0, len(texts), self._batch):
            queries, documents = zip(*texts[start : start + self._batch], strict=True)
            inputs = self._tokenizer(
                list(queries),
                list(documents),
                padding=True,
                truncation=True,
                max_length=LIMITS.max_length,
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

    def __init__(self, files: BaseFiles, sample: TextSample, stage: Stage, device: str) -> None:
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

    def train(self, steps: int) -> Timing:
        stage, model, times = self._stage, self._model.train(), []
        optimizer = torch.optim.AdamW(model.parameters(), lr=stage.learning_rate)
        groups = benchmark_groups(self._sample, stage, steps + 1)
        for step in range(steps + 1):
            part = groups[step * stage.groups_per_step : (step + 1) * stage.groups_per_step]
            pairs = [(text, doc) for group in part for text, docs in [self._item(group.query_id, step)] for doc in docs]
            queries, documents = map(list, zip(*pairs, strict=True))
            inputs = self._tokenizer(
                queries, documents, padding=True, truncation=True, max_length=LIMITS.max_length, return_tensors="pt"
            ).to(self._device)
            with torch.autocast(self._device.partition(":")[0], torch.bfloat16):
                scores = model(**inputs).logits.view(len(part), -1)
                loss = cross_entropy(scores.float(), torch.zeros(len(part), dtype=torch.long, device=scores.device))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            synchronize(self._device)
            times.append(time.perf_counter())
        return Timing(steps * stage.groups_per_step * stage.group_size, times[-1] - times[0])


def gradient_error(files: BaseFiles, sample: TextSample, stage: Stage, device: str) -> float:
    """How far cerank's gradient of a step is from that of transformers' model on padded pairs, without dropout.

    Relative, by the norm over all parameters; the loss is the stage's on both sides. Dropout is a module's probability
    in both models, so it is set to 0 there.
    """
    groups = benchmark_groups(sample, stage, 1)
    own = cross_encoder.load(files, files.pooling, 0).to(device).train()
    cross_encoder.set_dropout(own, 0.0)
    tokens = PairTokenizer(cross_encoder.load_tokenizer(files.folder), LIMITS)
    tokens.add("query", list(sample.queries), lambda ids: [sample.queries[i] for i in ids])
    tokens.add("document", list(sample.documents), lambda ids: [sample.documents[i] for i in ids])
    loss = LOSSES.find(stage.loss, "loss")
    trainer = Trainer(0, "bench", stage, seed=0, folder=files.folder, device=device)
    trainer.forward_backward(trainer.passes(own, tokens), encode_groups(tokens, groups), 1)
    found = {name.removeprefix("encoder."): value.grad for name, value in own.named_parameters()}

    theirs = AutoModelForSequenceClassification.from_pretrained(files.folder, dtype=torch.float32).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(files.folder)
    texts = [(sample.queries[one.query_id], sample.documents[doc]) for one in groups for doc in one.doc_ids]
    inputs = tokenizer(
        *map(list, zip(*texts, strict=True)),
        padding=True,
        truncation=True,
        max_length=LIMITS.max_length,
        return_tensors="pt",
    ).to(device)
    scores = theirs(**inputs).logits.view(len(groups), -1)
    labels = torch.tensor([group.labels for group in groups], device=device)
    loss(scores, labels, torch.ones_like(labels, dtype=torch.bool)).mean().backward()
    expected = {name: value.grad for name, value in theirs.named_parameters()}
    return _apart(found, expected)


def _apart(found: dict[str, torch.Tensor | None], expected: dict[str, torch.Tensor | None]) -> float:
    apart = whole = 0.0
    for name, gradient in expected.items():
        if gradient is not None:
            own = found[name]
            apart += float((gradient if own is None else own - gradient).double().pow(2).sum())
            whole += float(gradient.double().pow(2).sum())
    return float((apart / whole) ** 0.5)


def assembly_rate(files: BaseFiles, sample: TextSample, stage: Stage, device: str, steps: int = 64) -> float:
    """Pairs a second that are laid end to end as tensors where all texts are tokenized already, as from a store."""
    tokens = PairTokenizer(cross_encoder.load_tokenizer(files.folder), TokenLimits.of_stage(stage))
    tokens.add("query", list(sample.queries), lambda ids: [sample.queries[i] for i in ids])
    tokens.add("document", list(sample.documents), lambda ids: [sample.documents[i] for i in ids])
    sampler = benchmark_sampler(sample, stage)
    started, count = time.perf_counter(), 0
    for step in range(1, steps + 1):
        pairs = [tokens.pair(group.query_id, doc) for group in sampler.groups(step) for doc in group.doc_ids]
        packing_seconds(pairs, stage, device)
        count += len(pairs)
    return count / (time.perf_counter() - started)


class Entrant(msgspec.Struct, frozen=True):
    """Who takes part in a race: "module:class", or a program of its own that reads and answers the same lines."""

    kind: str
    is_own: bool = False
    program: tuple[str, ...] = ()


OWN, PEER, PLAIN, PAPER, LIGHTNING = (
    "cerank",
    "sentence-transformers",
    "plain transformers",
    "paper's style",
    "lightning-ir",
)
_HERE = (sys.executable, "-m", "cerank.bench.bench_worker")


def entrants(task: TaskKind, precision: str, lightning: str) -> dict[str, Entrant]:
    """Name -> entrant of all that are installed, cerank first.

    Args:
        task: "score" or "train".
        precision: "fp32" or "bf16"; the paper's style is mixed precision alone.
        lightning: the Python that has lightning-ir, if there is one.
    """
    found = {
        OWN: Entrant(
            "cerank.bench.own_workloads:CerankReranker"
            if task == "score"
            else "cerank.bench.own_workloads:CerankTraining",
            True,
        )
    }
    if can_rerank() if task == "score" else can_train():
        name = "SentenceTransformers" if task == "score" else "SentenceTransformersTraining"
        found[PEER] = Entrant(f"cerank.bench.baselines:{name}")
    if precision == "bf16":
        found[PAPER] = Entrant(f"{__name__}:{'Paper' if task == 'score' else 'PaperTraining'}", program=_HERE)
    if task == "score":
        found[PLAIN] = Entrant(f"{__name__}:Plain", program=_HERE)
    if lightning:
        program = (lightning, "-P", str(Path(__file__).with_name("lightning_peer.py")))
        found[LIGHTNING] = Entrant("lightning_ir", program=program)
    return found
