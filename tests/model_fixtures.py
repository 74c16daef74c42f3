"""A tiny encoder with a real tokenizer, made from nothing, so that training tests take a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank.models.bases import BaseFiles, fingerprint

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
WORDS += ["lambda", "mu", "nu", "xi", "omicron", "pi", "rho", "sigma", "tau", "upsilon"]


def write_tiny(folder: Path, kind: str = "bert", positions: int = 64) -> BaseFiles:
    """A two-layer encoder of hidden size 16 that knows twenty words, saved as transformers saves it."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast, ElectraConfig, ElectraModel

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    sizes = {"vocab_size": len(vocabulary), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": positions}
    model = (
        BertModel(BertConfig(**sizes)) if kind == "bert" else ElectraModel(ElectraConfig(embedding_size=16, **sizes))
    )
    model.save_pretrained(folder)
    return BaseFiles("tiny", folder, "mean" if kind == "bert" else "classifier", fingerprint(folder))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> BaseFiles:
    """A mean-pooled tiny BERT."""
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory: pytest.TempPathFactory) -> BaseFiles:
    """A tiny ELECTRA with a classification head."""
    return write_tiny(tmp_path_factory.mktemp("tiny-electra"), "electra")
