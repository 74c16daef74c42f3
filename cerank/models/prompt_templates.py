"""Declare how a language model judges a pair: what is written around query and document, and which word answers.

Published re-rankers that their folders do not describe are listed in `PUBLISHED`; anything else is declared by a TOML
file, `reranker.toml`, in the model's folder or named as the base.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cerank.core.decode import decode_table, help_text, toml_table
from cerank.errors import UsageError, os_error
from cerank.files.safe_open import read_file

DECLARATION = "reranker.toml"
QUERY, DOCUMENT, INSTRUCTION = "{query}", "{document}", "{instruction}"
_LARGEST = 1 << 20  # bytes of a declaration

Kind = Literal["causal", "encoder-decoder", "causal-classifier"]


class Declaration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a language model re-ranks; the content of a `reranker.toml`."""

    kind: Annotated[Kind, help_text("what the model is: causal, encoder-decoder, or causal with a linear head")]
    model: Annotated[str, help_text("hub id or folder, relative to this file; left out in a model's own folder")] = ""
    prefix: Annotated[str, help_text("before query and document; never cut")] = ""
    body: Annotated[
        tuple[str, ...], help_text("parts with {query}, {document}, {instruction}; each is tokenized by itself")
    ]
    suffix: Annotated[tuple[str, ...], help_text("parts after query and document; never cut")] = ()
    instruction: Annotated[str, help_text("what stands for {instruction}")] = ""
    yes: Annotated[str, help_text("the answer whose logit is the score; one token")] = ""
    no: Annotated[str, help_text('the answer whose logit is subtracted; "" subtracts none')] = ""
    max_length: Annotated[int, msgspec.Meta(ge=8), help_text("tokens read at most, prefix and suffix included")] = 512

    def template(self) -> PromptTemplate:
        """Return the template with the instruction in its place."""
        parts = tuple(part.replace(INSTRUCTION, self.instruction) for part in self.body)
        return PromptTemplate(self.prefix.replace(INSTRUCTION, self.instruction), parts, self.suffix)


class PromptTemplate(msgspec.Struct, frozen=True):
    """Text around a query and a document; each part is tokenized by itself, without special tokens of its own."""

    prefix: str
    body: tuple[str, ...]
    suffix: tuple[str, ...]


def declaration_mistakes(declared: Declaration) -> list[str]:
    """Return what is wrong with a declaration, in words; empty if nothing is."""
    mistakes = []
    body = "".join(declared.body)
    for placeholder in (QUERY, DOCUMENT):
        if body.count(placeholder) != 1:
            mistakes.append(f"body: holds {placeholder} {body.count(placeholder)} times; it must hold it once")
    if not mistakes and body.index(QUERY) > body.index(DOCUMENT):
        mistakes.append("body: the document comes before the query; such models are not supported")
    fixed = declared.prefix + "".join(declared.suffix)
    mistakes += [
        f"prefix and suffix: hold {name}; it belongs into the body" for name in (QUERY, DOCUMENT) if name in fixed
    ]
    unknown = set(re.findall(r"\{[a-z_]+\}", body)) - {QUERY, DOCUMENT, INSTRUCTION}
    mistakes += [
        f"body: {name} is no placeholder; {QUERY}, {DOCUMENT} and {INSTRUCTION} are" for name in sorted(unknown)
    ]
    if (INSTRUCTION in body or INSTRUCTION in declared.prefix) and not declared.instruction:
        mistakes.append("instruction: missing, and the template holds {instruction}")
    if declared.kind == "causal-classifier" and (declared.yes or declared.no):
        mistakes.append("yes, no: a model with a linear head answers by no token")
    if declared.kind != "causal-classifier" and not declared.yes:
        mistakes.append('yes: missing; give the answer whose logit is the score, such as "yes"')
    if declared.kind == "encoder-decoder" and not declared.no:
        mistakes.append('no: missing; an encoder-decoder is scored by log P(yes) against no, such as "false"')
    if declared.yes and declared.yes == declared.no:
        mistakes.append("no: is the same as yes")
    return mistakes


def read_declaration(path: Path) -> Declaration:
    """Return the declaration in a TOML file.

    Raises:
        UsageError: it cannot be read, or with everything that is wrong in it.
    """
    try:
        source = read_file(path, _LARGEST)
    except OSError as error:
        raise os_error(error, path) from error
    mistakes: list[str] = []
    declared = decode_table(Declaration, toml_table(source, str(path)), "", mistakes)
    if declared is not None:
        mistakes += declaration_mistakes(declared)
    if mistakes or declared is None:
        hint = "see `cerank guide models` for an example"
        raise UsageError("\n".join(mistakes), where=str(path), hint=hint, code="wrong-declaration")
    return declared


def declaration_text(declared: Declaration) -> str:
    """Return the TOML text of a declaration; `read_declaration` returns it as it is, but for its `model`."""
    lines = []
    for key, value in msgspec.to_builtins(msgspec.structs.replace(declared, model="")).items():
        if value not in ("", [], ()):
            lines.append(f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """Return a text, a number or a list of texts as TOML: as JSON, which leaves but one character to escape."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


class Published(msgspec.Struct, frozen=True):
    """A published family of re-rankers that its folders do not describe."""

    names: str  # a pattern that the hub id or the folder's name matches
    model_types: tuple[str, ...]
    declaration: Declaration


_QWEN_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
_QWEN = Declaration(
    kind="causal",
    prefix=(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    ),
    body=("<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}",),
    suffix=("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",),
    instruction=_QWEN_INSTRUCTION,
    yes="yes",
    no="no",
    max_length=8192,
)
_MXBAI_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each query-document "
    "pair, carefully analyze the semantic relationship between them, then provide your binary relevance judgment (0 "
    "for not relevant, 1 for relevant).\nRelevance:"
)
_MXBAI = Declaration(
    kind="causal",
    prefix=(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n"
    ),
    body=("query: {query}", "\n", "document: {document}"),
    suffix=("\n", _MXBAI_TASK, "<|im_end|>\n<|im_start|>assistant\n"),
    yes="1",
    no="0",
    max_length=8192,
)
_GEMMA = Declaration(
    kind="causal",
    prefix="<bos>",
    body=("A: {query}", "\n", "B: {document}"),
    suffix=(
        "\n",
        "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
        "prediction of either 'Yes' or 'No'.",
    ),
    yes="Yes",
    max_length=1024,
)
_MONOT5 = Declaration(
    kind="encoder-decoder",
    body=("Query: {query} Document: {document}",),
    suffix=("Relevant:", "</s>"),
    yes="true",
    no="false",
    max_length=512,
)

PUBLISHED: dict[str, Published] = {
    "Qwen3-Reranker": Published(r"qwen3-reranker", ("qwen3",), _QWEN),
    "mxbai-rerank-v2": Published(r"mxbai-rerank-\w+-v2", ("qwen2",), _MXBAI),
    "bge-reranker-v2-gemma": Published(r"bge-reranker-v2-gemma", ("gemma",), _GEMMA),
    "monoT5": Published(r"monot5", ("t5",), _MONOT5),
}


def published_as(names: Sequence[str], model_type: str) -> str:
    """Return the published family that one of the names belongs to, for a model of that type; "" if none."""
    for family, published in PUBLISHED.items():
        if model_type in published.model_types and any(re.search(published.names, name.lower()) for name in names):
            return family
    return ""


def with_linear_head(declared: Declaration) -> Declaration:
    """Return the declaration of the same family with its two answers folded into a linear head."""
    return msgspec.structs.replace(declared, kind="causal-classifier", yes="", no="")
