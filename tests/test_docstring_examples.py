"""The examples in docstrings: each is run as it stands, in a folder with the files that it names."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

import cerank
from cerank.models.cross_encoder import load, load_tokenizer, save
from cerank.recipes.schema import Stage
from cerank.tokenization.tokens import PairTokenizer, TokenLimits
from cerank.training.batches import TrainingData
from cerank.training.sampling.sampler import Sampler, TrainingPool
from tests.training.test_trainer import Recorder

PACKAGE = Path(cerank.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if re.search(r"^\s*>>> ", path.read_text(), re.MULTILINE)
)
FIRST_CALLS = [
    "api.LoadedReranker",
    "api.load",
    "api.compare",
    "core.negative_samplers",
    "core.rankings.ordered",
    "evaluation.verdicts.verdict.judge",
    "evaluation.measures.per_query",
    "evaluation.significance.paired",
    "inference.rerank.Scorer",
    "inference.rerank.rerank",
    "models.cross_encoder.load",
    "recipes.loading.load",
    "training.losses",
    "training.sampling.sampler.Sampler",
    "training.trainer.Trainer",
    "trec.text_io.read_qrels",
    "trec.text_io.read_run",
    "trec.text_io.write_qrels",
    "trec.text_io.write_run",
]
TEXTS = {"q1": "alpha", "q2": "beta", "d1": "alpha beta", "d2": "gamma", "d3": "beta delta"}


def examples(module):
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [example for example in finder.find(importlib.import_module(module)) if example.examples]


@pytest.fixture(scope="module")
def given(tiny, tmp_path_factory):
    """The names that examples say they are given, and a folder with the files that they read."""
    folder = tmp_path_factory.mktemp("examples")
    queries = [f"q{number}" for number in range(1, 13)]
    for name, ranks_of_d1 in (("bm25", (0, 1, 2, 1)), ("mine", (0, 0, 0, 1, 0))):
        with (folder / f"{name}.run").open("w") as run:
            for at, query in enumerate(queries):
                documents = ["d2", "d3"]
                documents.insert(ranks_of_d1[at % len(ranks_of_d1)], "d1")
                run.writelines(
                    f"{query} Q0 {doc} {rank} {4 - rank}.0 {name}\n" for rank, doc in enumerate(documents, 1)
                )
    (folder / "test.qrels").write_text("".join(f"{query} 0 d1 1\n{query} 0 d3 0\n" for query in queries))

    tokenizer = load_tokenizer(tiny.folder)
    save(load(tiny, "auto", seed=3), tokenizer, folder / "my-reranker", TokenLimits(32, 12))
    stage = Stage(steps=2, group_size=2, groups_per_step=1, max_length=32, max_query_length=12, validate_every=0)
    pool = TrainingPool(
        query_ids=["q1", "q2"],
        qrels={"q1": {"d1": 1}, "q2": {"d3": 1}},
        ranking={"q1": ["d2", "d1", "d3"], "q2": ["d1", "d3", "d2"]},
        has_text=TEXTS.__contains__,
    )
    texts = [lambda ids: [TEXTS[key] for key in ids]] * 2
    data = TrainingData(
        Sampler("contrastive", stage, 1, pool), PairTokenizer(tokenizer, TokenLimits.of_stage(stage)), *texts
    )
    names = {"files": tiny, "tokenizer": tokenizer, "stage": stage, "data": data, "callback": Recorder()}
    return folder, names


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_give_what_they_show(module, given, monkeypatch):
    folder, names = given
    monkeypatch.chdir(folder)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    shown: list[str] = []
    for example in examples(module):
        example.globs.update(names, model=load(names["files"], "auto", seed=1))
        runner.run(example, out=shown.append)
    assert not runner.summarize(verbose=False).failed, "".join(shown)


def test_no_example_is_shown_without_being_run():
    assert not [path for path in PACKAGE.rglob("*.py") if "doctest: +SKIP" in path.read_text()]


def test_what_a_reader_calls_first_has_an_example():
    found = {example.name.removeprefix("cerank.") for module in MODULES for example in examples(module)}
    assert set(FIRST_CALLS) <= found
