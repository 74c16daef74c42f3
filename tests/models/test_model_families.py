"""What each family of re-rankers can do, tried with a small model of it, is what the guide `models` says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import torch

from cerank.core.metrics import StepMetrics
from cerank.inference.rerank import Scorer
from cerank.models import cross_encoder
from cerank.models.bases import BaseFiles, locate
from cerank.models.cross_encoder import CrossEncoder, load_tokenizer
from cerank.models.forward_pass import ForwardPass
from cerank.models.load_model import load_model
from cerank.models.lora.adapter_training import add_adapter, take_adapter, write_adapter
from cerank.recipes.schema import Stage
from cerank.recipes.sections.adapter_specs import AdapterSpec
from cerank.tokenization.tokens import TokenLimits
from cerank.training.batches import TrainingData
from cerank.training.sampling.sampler import Sampler, TrainingPool
from cerank.training.trainer import PausedError, Trainer
from tests.models.family_fixtures import (
    PAIRS,
    edit_json,
    write_causal,
    write_encoder,
    write_ettin,
    write_lightning,
    write_t5,
    write_xpm,
)

LENGTH = 300
STAGE = Stage(
    steps=4,
    learning_rate=5e-3,
    group_size=2,
    groups_per_step=2,
    max_length=64,
    max_query_length=16,
    validate_every=2,
    schedule="constant",
    keep="last",
)
LORA = AdapterSpec(kind="lora", rank=4, dropout=0.1)
DOCUMENTS = {f"d{number}": f"the capital of France {number} is Paris " * (1 + number % 3) for number in range(8)}
QUERIES = {f"q{number}": f"what is the capital {number}" for number in range(8)}


class Family(NamedTuple):
    """A family, as the guide's table names it, and how a small model of it is made."""

    title: str
    write: Callable[[Path], str]  # from a folder to the base's name
    reference: str  # what its scores are compared with, in this folder's other tests
    length: int = 64


def _encoder(architecture: str, **more: object):
    return lambda folder: str(write_encoder(folder / "base", architecture, **more))


def _old_layout(folder: Path) -> str:
    """A re-ranker as sentence-transformers saved it before its modules, such as ms-marco-MiniLM."""
    base = write_encoder(folder / "base", "BertForSequenceClassification", num_labels=1)
    edit_json(base / "config.json", sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"})
    return str(base)


FAMILIES = (
    Family("BERT", _encoder("BertModel"), "transformers"),
    Family("RoBERTa", _encoder("RobertaModel", type_vocab_size=2), "transformers"),
    Family("XLM-RoBERTa", _encoder("XLMRobertaModel", type_vocab_size=2), "transformers"),
    Family("ELECTRA", _encoder("ElectraModel", embedding_size=32), "transformers"),
    Family("DistilBERT", _encoder("DistilBertModel"), "transformers"),
    Family("DeBERTa-v3", _encoder("DebertaV2Model"), "transformers"),
    Family("ModernBERT", _encoder("ModernBertModel"), "transformers"),
    Family("classifier of one label", _encoder("BertForSequenceClassification", num_labels=1), "transformers"),
    Family("classifier of two labels", _encoder("BertForSequenceClassification", num_labels=2), "transformers"),
    Family(
        "bge-reranker-v2-m3",
        _encoder("XLMRobertaForSequenceClassification", num_labels=1, type_vocab_size=2),
        "transformers",
    ),
    Family("gte-reranker-modernbert", _encoder("ModernBertForSequenceClassification", num_labels=1), "transformers"),
    Family("CrossEncoder, old layout", _old_layout, "CrossEncoder"),
    Family("Ettin re-ranker", lambda folder: str(write_ettin(folder / "base")), "CrossEncoder"),
    Family("lightning-ir", lambda folder: str(write_lightning(folder / "base")), "transformers"),
    Family("xpmir", lambda folder: str(write_xpm(folder / "base")), "transformers"),
    Family(
        "Qwen3-Reranker",
        lambda folder: str(write_causal(folder / "Qwen3-Reranker-0.6B", "qwen3")),
        "the publisher's code",
        LENGTH,
    ),
    Family(
        "mxbai-rerank-v2",
        lambda folder: str(write_causal(folder / "mxbai-rerank-base-v2", "qwen2")),
        "the publisher's code",
        LENGTH,
    ),
    Family(
        "bge-reranker-v2",
        lambda folder: str(write_causal(folder / "bge-reranker-v2-gemma", "gemma")),
        "the publisher's code",
        LENGTH,
    ),
    Family("monoT5", lambda folder: str(write_t5(folder / "monot5-base-msmarco")), "the publisher's code", LENGTH),
)


class Nothing:
    """A callback that remembers losses, and stops after a number of steps if it is to."""

    def __init__(self, stop_after: int = 0) -> None:
        self.losses: list[float] = []
        self.stop_after = stop_after

    def on_step(self, metrics: StepMetrics) -> None:
        self.losses.append(metrics.loss)

    def on_scores(self, step: int, spread: float) -> None: ...

    def validate(self, step: int) -> float:
        return float(step)

    def before_save(self) -> None: ...

    def after_save(self, state) -> None: ...

    def on_rejected(self, reason: str) -> None:
        raise AssertionError(reason)

    def on_out_of_memory(self, what: str) -> None:
        raise AssertionError(what)

    def should_stop(self) -> bool:
        return bool(self.stop_after) and len(self.losses) >= self.stop_after


def data_of(model: CrossEncoder, files: BaseFiles, stage: Stage) -> TrainingData:
    pool = TrainingPool(
        query_ids=list(QUERIES),
        qrels={f"q{number}": {f"d{number}": 1} for number in range(8)},
        ranking={query: sorted(DOCUMENTS) for query in QUERIES},
        has_text=DOCUMENTS.__contains__,
    )
    tokens = model.make_tokens(load_tokenizer(files.folder), TokenLimits.of_stage(stage))
    texts = [lambda keys: [QUERIES[key] for key in keys], lambda keys: [DOCUMENTS[key] for key in keys]]
    return TrainingData(Sampler("s", stage, 3, pool), tokens, *texts)


def train(files: BaseFiles, stage: Stage, folder: Path, *, merges: bool = True, callback: Nothing | None = None):
    """A model of the base after a stage, the callback, and whether it stopped before the stage's end."""
    model, callback = load_model(files, "auto", seed=3, merges=merges), callback or Nothing()
    trainer = Trainer(0, "s", stage, seed=3, folder=folder, device="cpu")
    try:
        trainer.train(model, data_of(model, files, stage), callback)
    except PausedError:
        assert callback.stop_after
    return model, callback


def scores_of(model: CrossEncoder, files: BaseFiles, length: int) -> list[float]:
    model.eval()
    tokens = model.make_tokens(load_tokenizer(files.folder), TokenLimits(length, length))
    return Scorer(model, tokens).score(PAIRS[:5])


def stage_of(family: Family, adapter: AdapterSpec = AdapterSpec(), **more: object) -> Stage:  # noqa: B008
    truncation = {} if family.length == LENGTH else {"truncation": "document"}
    return msgspec.structs.replace(STAGE, max_length=family.length, adapter=adapter, **truncation, **more)


def head_of(model: CrossEncoder) -> dict[str, torch.Tensor]:
    """The weights that are the head's, by name."""
    encoder = model.encoder
    outside = {} if model.pooling == "answer" else dict(encoder.named_parameters())
    prefix = f"{encoder.base_model_prefix}."
    found = {name: value for name, value in outside.items() if model.head is None and not name.startswith(prefix)}
    found |= dict(model.head.named_parameters()) if model.head is not None else {}
    return {
        f"encoder.{name}" if name in outside else f"head.{name}": value.detach().clone()
        for name, value in found.items()
    }


ALWAYS = {"BERT", "DeBERTa-v3", "ModernBERT", "Qwen3-Reranker"}  # one of each way to compute; the rest are slow tests


@pytest.fixture(
    params=[
        pytest.param(family, id=family.title, marks=[] if family.title in ALWAYS else [pytest.mark.slow])
        for family in FAMILIES
    ]
)
def family(request) -> Family:
    return request.param


@pytest.fixture
def files(family: Family, tmp_path: Path) -> BaseFiles:
    return locate(family.write(tmp_path))


def test_an_adapter_trains_itself_and_the_head_and_nothing_else_and_is_saved_and_read_with_equal_scores(
    family, files, tmp_path
):
    stage = stage_of(family, LORA)
    before = load_model(files, "auto", seed=3)
    start, head = {k: v.clone() for k, v in before.state_dict().items()}, head_of(before)
    model, _ = train(files, stage, tmp_path / "checkpoints")
    unmerged = scores_of(model, files, family.length)
    taken = take_adapter(model)
    merged = scores_of(model, files, family.length)
    assert merged == pytest.approx(unmerged, rel=1e-5, abs=1e-5)
    assert merged != pytest.approx(scores_of(before, files, family.length), abs=1e-4)
    # the head was trained with it, every matrix of it (a ranking loss gives the last bias no gradient)
    assert set(head_of(model)) == set(head)
    matrices = {name: value for name, value in head_of(model).items() if value.dim() > 1}
    assert bool(matrices) == (model.pooling != "answer")
    assert all(not torch.equal(value, head[name]) for name, value in matrices.items())
    # what is no target was not
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, start[name])}
    assert len(changed) > len(head)
    assert not any(re.search(r"embed|norm|shared", name, re.IGNORECASE) for name in changed - set(head))
    # both forms are read with equal scores
    limits = TokenLimits(family.length, family.length)
    write_adapter(model, taken, tmp_path / "adapter", limits, base=str(files.folder), base_sha256=files.sha256)
    cross_encoder.save(model, load_tokenizer(files.folder), tmp_path / "merged", limits)
    for folder in ("adapter", "merged"):
        assert Scorer.load(tmp_path / folder).score(PAIRS[:5]) == pytest.approx(merged, rel=1e-5, abs=1e-5)


def test_an_adapter_stage_that_was_killed_goes_on_to_the_same_bits(family, files, tmp_path):
    stage = stage_of(family, LORA)
    whole, told = train(files, stage, tmp_path / "whole")
    _, first = train(files, stage, tmp_path / "killed", callback=Nothing(stop_after=2))
    resumed, second = train(files, stage, tmp_path / "killed")
    assert first.losses + second.losses == told.losses
    expected, found = whole.state_dict(), resumed.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_a_stage_goes_on_with_an_adapter_that_was_saved(tmp_path):
    family = next(each for each in FAMILIES if each.title == "ELECTRA")
    files = locate(family.write(tmp_path))
    model, _ = train(files, stage_of(family, LORA), tmp_path / "first")
    expected = scores_of(model, files, family.length)
    limits = TokenLimits(family.length, family.length)
    taken = take_adapter(model)
    write_adapter(model, taken, tmp_path / "adapter", limits, base=str(files.folder), base_sha256=files.sha256)
    found = locate(str(tmp_path / "adapter"))
    again = load_model(found, "auto", seed=9, merges=False)
    assert again.adapter is not None
    assert scores_of(again, found, family.length) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    further, _ = train(found, stage_of(family, LORA), tmp_path / "second", merges=False)
    assert scores_of(further, found, family.length) != pytest.approx(expected, abs=1e-3)


def test_layers_that_are_frozen_get_no_adapter_and_its_dropout_is_its_own(tmp_path):
    files = locate(FAMILIES[0].write(tmp_path))
    model = load_model(files, "auto", seed=3)
    add_adapter(model, LORA, seed=3, stage="s", frozen_layers=1)
    cross_encoder.set_dropout(model, 0.0)
    adapted = [name for name, _ in model.encoder.named_modules() if name.endswith("lora_A")]
    assert len(adapted) == 3
    assert all(".layer.1." in name for name in adapted)
    rates = {module.p for name, module in model.named_modules() if "lora_dropout" in name and hasattr(module, "p")}
    assert rates == {0.1}


HEAD = "| family | recognized as | equal scores | packed | head is trained |"


def table(folder: Path) -> str:
    """The table of the guide."""
    lines = [HEAD, "|---" * 5 + "|"]
    for number, family in enumerate(FAMILIES):
        files = locate(family.write(folder / str(number)))
        model = load_model(files, "auto", seed=3)
        tokens = model.make_tokens(load_tokenizer(files.folder), TokenLimits(family.length, family.length))
        is_packed = ForwardPass(model, tokens, torch.device("cpu"), "fp32").is_packed
        head = "yes" if head_of(model) else "words of the answer"
        cells = [family.title, files.reading().family, family.reference, "yes" if is_packed else "no", head]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


@pytest.mark.slow
def test_the_guide_shows_what_each_family_can_do(tmp_path):
    guide = Path(cross_encoder.__file__).parents[1] / "guides" / "models.md"
    expected = table(tmp_path)
    assert expected in guide.read_text(encoding="utf8"), f"put this table into {guide.name}:\n{expected}"
