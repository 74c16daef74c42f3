"""The requests that a re-ranking server understands, and its answers, as Cohere, Jina, vLLM and TEI have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from cerank.files import json_records
from cerank.text.safe_text import shown


class BadRequestError(Exception):
    """A request that cannot be answered; the text says why, and `status` is the HTTP status.

    Args:
        text: what is wrong with the request.
        status: of the answer.
    """

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class RerankBody(msgspec.Struct, frozen=True):
    """POST /rerank, /v1/rerank and /v2/rerank: documents are texts, or objects with a key "text"."""

    query: str
    documents: list[str | dict[str, Any]] | None = None
    texts: list[str] | None = None  # as text-embeddings-inference calls them
    top_n: int | None = None
    top_k: int | None = None  # as Voyage calls it
    return_documents: bool = False
    return_text: bool = False
    model: str = ""


class ScoreBody(msgspec.Struct, frozen=True):
    """POST /score and /v1/score, as vLLM has them: one text or several on each side."""

    text_1: str | list[str] | None = None
    text_2: str | list[str] | None = None
    queries: str | list[str] | None = None  # the newer names of the two
    documents: str | list[str] | None = None
    model: str = ""


class RerankTask(msgspec.Struct, frozen=True):
    """What a body asks for: scores of pairs, and how they are handed back."""

    pairs: list[tuple[str, str]]
    top_n: int | None = None
    with_documents: bool = False
    is_tei: bool = False
    is_score: bool = False


def parse_rerank(body: bytes) -> RerankTask:
    """Return what a body for /rerank asks for.

    Raises:
        BadRequestError: it is no such body.
    """
    request = _decoded(body, RerankBody)
    if (request.documents is None) == (request.texts is None):
        raise BadRequestError('give "documents", a list of texts')
    given = request.documents if request.documents is not None else request.texts
    documents = [_text_of(document, place) for place, document in enumerate(given or ())]
    top_n = request.top_n if request.top_n is not None else request.top_k
    if top_n is not None and top_n < 1:
        raise BadRequestError(f'"top_n" is at least 1, not {top_n}')
    if not documents:
        raise BadRequestError('"documents" is empty')
    return RerankTask(
        [(request.query, document) for document in documents],
        top_n,
        request.return_documents or request.return_text,
        is_tei=request.texts is not None,
    )


def parse_score(body: bytes) -> RerankTask:
    """Return what a body for /score asks for.

    Raises:
        BadRequestError: it is no such body.
    """
    request = _decoded(body, ScoreBody)
    left, right = request.text_1 or request.queries, request.text_2 or request.documents
    if left is None or right is None or not left or not right:
        raise BadRequestError('give "text_1" and "text_2": a text, or a list of texts')
    queries, documents = ([side] if isinstance(side, str) else side for side in (left, right))
    if len(queries) == 1:
        queries = queries * len(documents)
    if len(queries) != len(documents):
        raise BadRequestError(f'"text_1" has {len(queries)} texts and "text_2" {len(documents)}')
    return RerankTask(list(zip(queries, documents, strict=True)), is_score=True)


def _text_of(document: str | dict[str, Any], place: int) -> str:
    text = document if isinstance(document, str) else document.get("text")
    if not isinstance(text, str):
        raise BadRequestError(f'document {place} is no text, and has no key "text" with one')
    return text


def _decoded(body: bytes, kind: type[Any]) -> Any:
    try:
        return json_records.decode(body, kind)
    except msgspec.ValidationError as error:
        raise BadRequestError(shown(error, 300)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"the body is no JSON: {shown(error, 200)}") from error


def answer(task: RerankTask, scores: Sequence[float], *, model: str, number: str) -> bytes:
    """Return the body of the answer, in the shape of the request.

    Args:
        task: what was asked.
        scores: of the task's pairs, in order.
        model: what the model is called.
        number: id of this answer.
    """
    encode = msgspec.json.encode
    if task.is_score:
        data = [{"index": place, "object": "score", "score": score} for place, score in enumerate(scores)]
        return encode({"id": number, "object": "list", "model": model, "data": data, "usage": {"total_tokens": 0}})
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))[: task.top_n]
    if task.is_tei:
        rows = [{"index": place, "score": scores[place]} for place in order]
        texts = [{"text": task.pairs[place][1]} if task.with_documents else {} for place in order]
        return encode([row | text for row, text in zip(rows, texts, strict=True)])
    results: list[dict[str, Any]] = []
    for place in order:
        row: dict[str, Any] = {"index": place, "relevance_score": scores[place]}
        if task.with_documents:
            row["document"] = {"text": task.pairs[place][1]}
        results.append(row)
    return encode({"id": number, "model": model, "results": results, "usage": {"total_tokens": 0}})
