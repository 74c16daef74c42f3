"""Score candidates with a re-ranking server: Cohere, Jina, Voyage, vLLM, text-embeddings-inference and their like.

Invariant: a query with the same documents is asked once; its answer lies in the cache. A key is read from the
environment, is sent over https or to this machine only, and appears in no file and no message.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import statistics
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from cerank.errors import FormatError, MissingError, RunFailedError, UsageError
from cerank.files import disk, json_records
from cerank.files.hashing import sha256_json
from cerank.text.safe_text import counted, shown

TIMEOUT = 60.0  # seconds without an answer
_TRIES, FIRST_PAUSE = 5, 1.0  # seconds, doubled each time
_BUSY = {429, 500, 502, 503, 504}
_KEYS = (("cohere", "COHERE_API_KEY"), ("jina", "JINA_API_KEY"), ("voyage", "VOYAGE_API_KEY"))
OWN_KEY = "CERANK_RERANK_API_KEY"
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_LARGEST_ANSWER = 1 << 26  # bytes


class ServerAnswer(msgspec.Struct, frozen=True):
    """A server's scores for one query, as the cache holds them."""

    scores: list[float]  # in the order of the documents
    tokens: int = 0  # billed; 0 where the server does not say
    searches: float = 0.0  # billed; 0 where the server does not say
    seconds: float = 0.0


class ServerCosts(msgspec.Struct):
    """What the answers of a server cost so far."""

    requests: int = 0
    from_cache: int = 0
    tokens: int = 0
    searches: float = 0.0
    seconds: list[float] = msgspec.field(default_factory=list)  # duration of each request

    def summary(self, price: float = 0.0) -> str:
        """Return requests, latency, what was billed, and what that costs.

        Args:
            price: of a million tokens, or of a thousand searches where the server bills these; 0 says no cost.
        """
        parts = [f"{counted(self.requests, 'request')}, {counted(self.from_cache, 'answer')} from the cache"]
        if self.seconds:
            slow = sorted(self.seconds)[math.ceil(0.95 * len(self.seconds)) - 1]
            parts.append(f"latency {statistics.median(self.seconds):.2f} s (median), {slow:.2f} s (95 %)")
        if self.searches:
            parts.append(f"billed {self.searches:,.0f} searches")
        elif self.tokens:
            parts.append(f"billed {counted(self.tokens, 'token')}")
        if price and (self.searches or self.tokens):
            parts.append(f"cost {price * (self.searches / 1e3 if self.searches else self.tokens / 1e6):.4f}")
        return "; ".join(parts)


class RerankServer:
    """A server that speaks /rerank.

    Args:
        url: its address, such as https://api.jina.ai/v1/rerank or http://localhost:8080; without a path, /rerank.
        model: the model's name there; "" where the server has only one.
        cache: folder in which its answers are kept.
    """

    def __init__(self, url: str, model: str, cache: Path) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(f"'{shown(url, 120)}' is no http or https address", code="not-an-address")
        self.url = url if parts.path.strip("/") else f"{url.rstrip('/')}/rerank"
        self.model, self.costs = model, ServerCosts()
        self._key = _key_of(parts.hostname)
        if self._key and parts.scheme == "http" and parts.hostname not in _LOCAL:
            raise UsageError(
                "a key is sent over https only",
                where=shown(url, 200),
                hint="use the https address",
                code="https-needed",
            )
        self._folder = cache / "rerank-servers" / sha256_json([self.url, model])

    def score(self, query: str, documents: Sequence[str]) -> list[float]:
        """Return the score of each document for a query; the larger, the more relevant.

        Raises:
            MissingError: the server cannot be reached, or refuses.
            FormatError: it answers with something else than scores.
        """
        path = self._folder / f"{sha256_json([query, list(documents)])}.json"
        try:
            answer = json_records.decode(path.read_bytes(), ServerAnswer)
            self.costs.from_cache += 1
        except (OSError, ValueError):
            answer = self.ask(query, documents)
            disk.make_folder(self._folder)
            disk.write(path, msgspec.json.encode(answer))
            self.costs.requests += 1
            self.costs.seconds.append(answer.seconds)
        self.costs.tokens += answer.tokens
        self.costs.searches += answer.searches
        return answer.scores

    def ask(self, query: str, documents: Sequence[str]) -> ServerAnswer:
        """Return what the server says now, whatever the cache holds; raises as `score`."""
        is_tei = not self.model and urlsplit(self.url).path.rstrip("/") == "/rerank"
        body: dict[str, Any] = {"query": query}
        body |= {"texts": list(documents), "truncate": True} if is_tei else {"documents": list(documents)}
        if self.model:
            body["model"] = self.model
            body["top_k" if "voyage" in self.url else "top_n"] = len(documents)
        began = time.monotonic()
        values = self._post(body)
        return _answer(values, len(documents), time.monotonic() - began, self.url)

    def _post(self, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        pause = FIRST_PAUSE
        for attempt in range(_TRIES):
            request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)  # noqa: S310 - http or https
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310 - http or https
                    return json.loads(answer.read(_LARGEST_ANSWER))
            except urllib.error.HTTPError as error:
                said = shown(error.read(2000).decode("utf-8", "replace"), 300)
                if error.code not in _BUSY or attempt == _TRIES - 1:
                    hint = f"keys are read from {OWN_KEY} and {', '.join(name for _, name in _KEYS)}"
                    where = shown(self.url, 200)
                    raise MissingError(
                        f"the server answers {error.code}: {said}",
                        where=where,
                        hint=hint if error.code in {401, 403} else "",
                        code="server-refused",
                    ) from error
            except (OSError, http.client.HTTPException, ValueError) as error:
                if attempt == _TRIES - 1:
                    what = f"the server cannot be reached: {shown(error, 200)}"
                    raise MissingError(what, where=shown(self.url, 200), hint="what was answered is kept") from error
            time.sleep(pause)
            pause *= 2
        raise RunFailedError("the server did not answer", where=shown(self.url, 200))


def _key_of(host: str) -> str:
    """Return the key for a host from the environment; "" where there is none."""
    names = [OWN_KEY, *(name for part, name in _KEYS if part in host)]
    return next((value for name in names if (value := os.environ.get(name, ""))), "")


def _answer(values: Any, count: int, seconds: float, url: str) -> ServerAnswer:
    """Return the scores in an answer of any of the servers, in the order of the documents."""
    rows = values if isinstance(values, list) else None
    if isinstance(values, dict):
        rows = values.get("results", values.get("data"))
    scores: dict[int, float] = {}
    try:
        for row in rows or ():
            score = row.get("relevance_score", row.get("score"))
            scores[int(row["index"])] = float(score)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise FormatError("the server's answer holds no scores", where=shown(url, 200)) from error
    if sorted(scores) != list(range(count)) or not all(map(math.isfinite, scores.values())):
        what = f"the server scored {counted(len(scores), 'document')} of {count}"
        raise FormatError(
            what, where=shown(url, 200), hint="is it a re-ranker, and does it return all documents?", code="score-count"
        )
    usage = (values.get("usage") or {}) if isinstance(values, dict) else {}
    billed = ((values.get("meta") or {}).get("billed_units") or {}) if isinstance(values, dict) else {}
    tokens = usage.get("total_tokens") or billed.get("input_tokens") or 0
    return ServerAnswer(
        [scores[place] for place in range(count)], int(tokens), float(billed.get("search_units") or 0.0), seconds
    )
