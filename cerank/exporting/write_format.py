"""Write a finished re-ranker as files that another library loads."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cerank.errors import UsageError
from cerank.exporting import quantize_graph
from cerank.exporting.export_formats import GRAPH_FILES, LIBRARIES, ExportFormat
from cerank.models import cross_encoder
from cerank.models.cross_encoder import CrossEncoder
from cerank.models.load_model import FinishedReranker
from cerank.tokenization.tokens import PaddedBatch, PairTokenizer

_OPSET = 17


def check_expressible(model: CrossEncoder, form: ExportFormat, where: str) -> None:
    """Check that the format can hold how the model scores.

    Raises:
        UsageError: it cannot; the hint names a format that can.
    """
    pooling, what, hint = model.pooling, "", "--as onnx holds all of it"
    if form == "sentence-transformers" and pooling == "product":
        what = "sentence-transformers has no module for the product of two means"
        hint += '; or train with pooling = "mean"'
    elif form == "sentence-transformers" and pooling == "answer":
        what, hint = (
            "its score is the answer to a prompt, which cerank writes for transformers only",
            "--as transformers",
        )
    elif form == "sentence-transformers" and model.label is not None:
        what, hint = "it has two labels, and its score is the log probability of one of them", "--as transformers"
    elif form == "transformers" and pooling in {"product", "mean", "cls"}:
        what = f"transformers has no class with a head on pooling '{pooling}'; it would load the encoder alone"
        hint = "--as sentence-transformers" if pooling != "product" else hint
    elif form in GRAPH_FILES and pooling == "answer":
        what, hint = "language models are not written as ONNX or OpenVINO graphs", "--as transformers"
    if what:
        raise UsageError(what, where=where, hint=hint, code="format-cannot-hold")


def write(
    reranker: FinishedReranker,
    folder: Path,
    form: ExportFormat,
    where: str,
    calibration: Sequence[tuple[str, str]] = (),
) -> None:
    """Write the model into an empty folder; a README is not part of it.

    Args:
        reranker: the model, on the CPU.
        folder: an existing folder.
        form: the format to write.
        where: what an error calls the model.
        calibration: queries with passages whose inputs set the ranges of 8 bits, where the format has fixed ones.

    Raises:
        UsageError: the format cannot hold this model, or its library is not installed.
    """
    model, tokenizer, limits, _ = reranker
    check_expressible(model, form, where)
    if form in {"sentence-transformers", "transformers"}:
        cross_encoder.save(model, tokenizer, folder, limits)
        (folder / "README.md").unlink()
        return
    check_libraries(form)
    encoder: Any = model.encoder
    encoder.config.save_pretrained(folder)
    tokenizer.model_max_length = limits.max_length
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder)
    target = folder / GRAPH_FILES[form]
    target.parent.mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        plain = target if form == "onnx" else Path(scratch) / "model.onnx"
        _write_onnx(model, model.make_tokens(tokenizer, limits), plain)
        prompted = [(model.query_prompt + query, passage) for query, passage in calibration]
        inputs = [dict(tokenizer(*pair, truncation=True, return_tensors="np")) for pair in prompted]
        if form == "onnx-int8":
            quantize_graph.quantize_dynamic(plain, target)
        elif form == "onnx-int8-static":
            quantize_graph.quantize_static(plain, target, inputs)
        elif form in {"openvino", "openvino-int8"}:
            quantize_graph.write_openvino(plain, target, inputs if form == "openvino-int8" else None)


def check_libraries(form: ExportFormat) -> None:
    """Check that the libraries that a graph is written with are installed, without importing them.

    Raises:
        UsageError: one is not.
    """
    for name in LIBRARIES.get(form, ()):
        if find_spec(name) is None:
            hint = f"pip install 'cerank[{'openvino' if form.startswith('openvino') else 'onnx'}]'"
            raise UsageError(f"{name} is not installed", where="--as", hint=hint, code="library-missing")


class _ScoresOfTensors(nn.Module):
    """A cross-encoder from the tensors of a tokenizer to scores (pairs, 1), as ONNX graphs are made of."""

    def __init__(self, model: CrossEncoder, *, has_types: bool) -> None:
        super().__init__()
        self.model, self.has_types = model, has_types

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        segments = token_type_ids if token_type_ids is not None else torch.zeros_like(input_ids)
        scores: Tensor = self.model(PaddedBatch(input_ids, attention_mask, segments, self.has_types))
        return scores.unsqueeze(-1)


def _write_onnx(model: CrossEncoder, tokens: PairTokenizer, path: Path) -> None:
    """Write the graph from token ids to scores.

    The exporter that traces is used: the one by torch.export takes ten times as long for the same graph.
    """
    if model.pooling == "product" and not tokens.has_types:
        what = "its score needs to know where the document starts, which its tokenizer does not say"
        raise UsageError(what, where="--as", hint='train with pooling = "mean"', code="format-cannot-hold")
    encoder: Any = model.encoder
    attention = encoder.config._attn_implementation
    encoder.set_attn_implementation("eager")  # other kinds leave out masks that the traced example does not need
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if tokens.has_types else [])]
    tokens.add("query", ["long", "short"], lambda keys: [f"{key} query" for key in keys])
    tokens.add("document", ["long", "short"], lambda keys: ["a passage of some words " * 2, "one"][: len(keys)])
    batch = tokens.batch([tokens.pair("long", "long"), tokens.pair("short", "short")], torch.device("cpu"))
    tokens.clear()
    example = (batch.ids, batch.mask, batch.segments)[: len(names)]
    axes = {name: {0: "batch", 1: "sequence"} for name in names} | {"logits": {0: "batch"}}
    wrapped = _ScoresOfTensors(model, has_types=tokens.has_types).eval()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # of the tracer, about each shape that it sees; the scores are checked
            torch.onnx.export(
                wrapped,
                example,
                str(path),
                input_names=names,
                output_names=["logits"],
                dynamic_axes=axes,
                opset_version=_OPSET,
                dynamo=False,
            )
    except Exception as error:  # the exporter may raise anything on a model that it does not know
        what = f"torch cannot write this model as ONNX: {type(error).__name__}"
        raise UsageError(what, where="--as", hint="take another format", code="format-cannot-hold") from error
    finally:
        encoder.set_attn_implementation(attention)
