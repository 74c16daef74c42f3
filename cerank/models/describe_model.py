"""Say in words how a base is read: its family, the tokens of an example pair, how states become a score, its size."""

from __future__ import annotations

from cerank.models.bases import BASES, BaseFiles, locate
from cerank.models.cross_encoder import load_tokenizer
from cerank.models.finite_weights import check_finite
from cerank.models.language_model import answer_ids
from cerank.models.model_reading import ModelReading, Pooling
from cerank.models.preflight import check_tokenizer
from cerank.models.prompt_templates import Declaration
from cerank.models.prompt_tokens import PromptTokenizer
from cerank.text.safe_text import shown
from cerank.tokenization.tokens import PairTokenizer, TokenLimits

_QUERY, _DOCUMENT = "what is a cross-encoder", "A cross-encoder reads query and document together."
_EXAMPLE_LENGTH = 512  # tokens; enough for any template with the example
_BYTES_TRAINED = 16  # a weight in float32: itself, its gradient, and AdamW's two moments

_SCORES: dict[Pooling, str] = {
    "classifier": "by the classification head of the model's own class in transformers",
    "mean": "by the head on the mean of the last hidden states",
    "cls": "by the head on the first token's last hidden state",
    "product": "by a linear layer on the product of the mean states of query and document, each of length 1",
    "answer": "by the answer of the language model to its prompt",
}


def describe(name: str, pooling: str = "auto") -> tuple[tuple[str, str], ...]:
    """Return (property, value) rows about a base; raises as `bases.locate` and `preflight.check_tokenizer` do."""
    files = locate(name, pooling=pooling)
    reading = files.reading()
    check_tokenizer(files.folder)
    check_finite(files.folder)
    rows = [
        ("family", reading.family),
        ("head", "trained" if reading.head == "trained" else "fresh: it must be fine-tuned before it can rank"),
        ("score", _score(files, reading)),
        ("longest input", f"{reading.max_length} tokens" if reading.max_length else "its files do not say"),
        ("example", _example(files, reading)),
    ]
    if reading.query_prompt:
        rows.append(("before each query", shown(reading.query_prompt, 200)))
    if reading.activation:
        what = f"{shown(reading.activation, 40)} of sentence-transformers is not applied; it does not change the order"
        rows.append(("activation", what))
    if reading.parameters:
        rows += [("parameters", _count(reading.parameters)), ("memory", _memory(reading.parameters))]
    if name in BASES:
        rows.append(("license", BASES[name].license))
    return (*rows, ("folder", str(files.folder)), ("sha256", files.sha256))


def _score(files: BaseFiles, reading: ModelReading) -> str:
    declared = reading.declaration
    if declared is not None:
        return _answers(files, declared)
    if reading.label is not None:
        return f"log P(label {reading.label}) of its two labels"
    return _SCORES[files.pooling]


def _answers(files: BaseFiles, declared: Declaration) -> str:
    if declared.kind == "causal-classifier":
        return "by its linear head on the last token's state"
    ids = answer_ids(load_tokenizer(files.folder), declared, files.declared_in)
    yes = f"{shown(declared.yes, 40)!r} (token {ids[0]})"
    if not declared.no:
        return f"logit of {yes}"
    no = f"{shown(declared.no, 40)!r} (token {ids[1]})"
    return f"log P of {yes} against {no}" if declared.kind == "encoder-decoder" else f"logit of {yes} less that of {no}"


def _example(files: BaseFiles, reading: ModelReading) -> str:
    """Return the tokens of an example pair, as text."""
    tokenizer = load_tokenizer(files.folder)
    longest = min(reading.max_length or _EXAMPLE_LENGTH, _EXAMPLE_LENGTH)
    tokens: PairTokenizer
    if reading.declaration is not None:
        tokens = PromptTokenizer(tokenizer, TokenLimits(longest, longest), reading.declaration.template())
    else:
        tokens = PairTokenizer(tokenizer, TokenLimits(longest, longest), reading.query_prompt)
    tokens.add("query", ["q"], lambda _: [_QUERY])
    tokens.add("document", ["d"], lambda _: [_DOCUMENT])
    ids = tokens.pair("q", "d").ids
    text = tokenizer.decode(list(ids))
    return f"{len(ids)} tokens: {shown(text.replace(chr(10), chr(92) + 'n'), 1000)}"


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} million" if parameters < 1e9 else f"{parameters / 1e9:.2f} billion"


def _memory(parameters: int) -> str:
    weights, trained = 4 * parameters / 1e9, _BYTES_TRAINED * parameters / 1e9
    return f"{weights:.2g} GB of weights to re-rank in fp32, {trained:.2g} GB with gradients and AdamW to train"
