"""Where the benchmark's contenders meet: the model and texts that all get, and the processes they sit in."""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from cerank.bench import own_workloads
from cerank.bench.interleaved_rounds import COMMAND, BenchProcess, BenchTask, TaskKind, baseline_environment
from cerank.bench.text_samples import TextSample, dataset_sample, generated_sample
from cerank.datasets.open_datasets import open_dataset
from cerank.machine import process_environment
from cerank.models import cross_encoder
from cerank.models.bases import BaseFiles, fingerprint, locate
from tests.benchmarks.contenders import Entrant


class Arena:
    """Texts, a checkpoint and a folder for one run of the benchmark."""

    def __init__(self, options: argparse.Namespace, room: Path) -> None:
        self.options, self.room = options, room
        self.sample = _sample(options)
        self.lengths: list[int] = []
        self.files = self._checkpoint()
        self.lengths = own_workloads.pair_lengths(self.files, self.sample)

    def written(self, sample: TextSample, name: str) -> str:
        """A file that contenders read a sample from."""
        file = self.room / f"{name}.json"
        if not file.exists():
            file.write_bytes(msgspec.json.encode(sample))
        return str(file)

    def needed(self, sample: TextSample) -> float:
        """Operations that scores of a sample need."""
        return own_workloads.scoring_operations(self.files, own_workloads.pair_lengths(self.files, sample))

    def seated(
        self, stack: ExitStack, name: str, entrant: Entrant, task: TaskKind, precision: str, sample: str = ""
    ) -> BenchProcess:
        """A process that holds one work ready, called by its task."""
        options = self.options
        if entrant.is_own:
            environment = process_environment.inherited_environment(
                os.environ
            ) | process_environment.pinned_environment(options.threads)
        else:
            environment = baseline_environment(os.environ, options.threads)
            environment |= {"OMP_WAIT_POLICY": "PASSIVE"} if options.peers_sleep else {}
        folder = Path.cwd() if entrant.program else None  # the benchmark's own classes are found from here
        made = BenchProcess(name, environment, self.room, entrant.program or COMMAND, folder)
        contender = stack.enter_context(made)
        contender.prepare(
            BenchTask(
                name=task,
                implementation=entrant.kind,
                task=task,
                is_own=entrant.is_own,
                folder=str(self.files.folder),
                pooling=self.files.pooling,
                sample=sample or self.written(self.sample, "sample"),
                device=options.device,
                precision=precision,
                threads=options.threads,
                steps=options.steps,
            )
        )
        return contender

    def _checkpoint(self) -> BaseFiles:
        """What all load: the one named, or a new one trained a little, so that its scores are apart."""
        options = self.options
        if options.checkpoint:
            return locate(options.checkpoint)
        files = own_workloads.save_checkpoint(locate(options.base), self.room / "new")
        if not options.warm_up:
            return files
        stage = own_workloads.benchmark_stage(self.sample, precision="fp32", group_size=8, groups_per_step=4)
        learner = own_workloads.CerankTraining(
            files, self.sample, msgspec.structs.replace(stage, learning_rate=1e-4), options.device
        )
        learner.train(options.warm_up)
        folder = Path(options.keep or self.room / "trained")
        tokenizer = cross_encoder.load_tokenizer(files.folder)
        cross_encoder.save(learner.model, tokenizer, folder, own_workloads.LIMITS)
        return BaseFiles(files.name, folder, files.pooling, fingerprint(folder))

    @property
    def model_is(self) -> str:
        """The checkpoint in words."""
        if self.options.checkpoint:
            return f"the checkpoint {Path(self.options.checkpoint).name}"
        how = f"trained {self.options.warm_up} steps by cerank" if self.options.warm_up else "with a head as drawn"
        return f"{self.options.base} ({self.files.pooling}), {how}"


PEAK = Entrant("cerank.bench.own_workloads:product_peaks")


def _sample(options: argparse.Namespace) -> TextSample:
    if not options.dataset:
        return generated_sample(options.pairs, options.depth)
    with TemporaryDirectory() as room:
        cache = Path(options.cache or room)
        dataset = open_dataset(options.dataset, cache)
        return dataset_sample(dataset, options.first_stage, pairs=options.pairs, depth=options.depth, cache=cache)


def first_lists(sample: TextSample, pairs: int) -> TextSample:
    """The first lists of a sample, whole, until they hold `pairs` pairs."""
    lists: dict[str, tuple[str, ...]] = {}
    for query, docs in sample.lists.items():
        lists[query] = docs
        if sum(map(len, lists.values())) >= pairs:
            break
    return TextSample(sample.name, sample.queries, sample.documents, lists)


def grown(sample: TextSample, pairs: int, depth: int, of: int) -> TextSample:
    """`pairs` pairs in lists of `depth` over the same `of` passages, as often as it takes, each time by new ids.

    Where `of` divides `pairs`, two sizes so have the same mix of lengths, and nothing that one tokenizes once more
    often than the other. The passages are spread over the sample's.
    """
    ids = sorted(sample.documents)
    chosen = [ids[at * len(ids) // of] for at in range(of)]
    texts = list(sample.queries.values())[: max(1, of // depth)]
    lists: dict[str, tuple[str, ...]] = {}
    documents: dict[str, str] = {}
    for number in range(pairs // depth):
        docs = {f"{at}": chosen[at % of] for at in range(number * depth, (number + 1) * depth)}
        documents |= {name: sample.documents[doc] for name, doc in docs.items()}
        lists[f"q{number}"] = tuple(docs)
    queries = {query: texts[at % len(texts)] for at, query in enumerate(lists)}
    return TextSample(sample.name, queries, documents, lists)
