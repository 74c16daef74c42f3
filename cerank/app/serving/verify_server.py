"""Whether a server gives the scores that a run was measured by, and if not, by how much and where they differ."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from cerank.app.comparison.named_systems import RunTarget
from cerank.app.named_models import check_measured, trained_model
from cerank.app.run_texts import condition_of, some_texts
from cerank.errors import MissingError
from cerank.inference.rerank_server import RerankServer
from cerank.settings import Settings
from cerank.text.safe_text import counted
from cerank.trec.text_io import read_run

SAME = 1e-5  # of the spread of scores, or absolute: other batches give other last bits
_LIKE_PRECISION = 0.03  # of the spread of scores: bf16 keeps three digits


class ServerCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How a server's scores agree with those of a run."""

    url: str
    system: str
    queries: int
    pairs: int
    has_sigmoid: bool  # the server hands out probabilities, which were compared with the run's
    largest: float  # difference of two scores
    mean: float
    cut: int  # pairs that are longer than the model reads
    largest_cut: float
    largest_whole: float
    reordered: int  # queries with another order, but for scores closer than `allowed`
    correlation: float  # of both scores over all pairs
    allowed: float

    @property
    def agrees(self) -> bool:
        """Return whether the server scores what was measured, but for the last bits."""
        return self.largest <= self.allowed

    @property
    def where(self) -> str:
        """Return what the differences point to, in words."""
        if self.agrees:
            return "it serves what was measured"
        if self.largest_whole <= self.allowed:
            return "truncation: only texts that are longer than the model reads differ; compare the servers' max_length"
        if self.correlation > 0.999 and self.largest <= self.allowed / SAME * _LIKE_PRECISION:
            return "precision: scores differ a little everywhere, as in bf16 or fp16"
        if self.correlation > 0.999:
            return "scale: scores are in proportion to the run's; the server applies another activation or temperature"
        return "template or weights: scores differ; the server joins query and text otherwise, or has another model"


def check_server(
    settings: Settings, name: str, url: str, *, server_model: str, queries: int, progress: Callable[[str], None]
) -> ServerCheck:
    """Ask a server for scores of a run's test queries, and compare them with the stored ones.

    Args:
        settings: where the lab and caches are.
        name: a run (its last stage) or RUN:STAGE.
        url: address of the server: vLLM, text-embeddings-inference, Infinity, cerank, or of Cohere's shape.
        server_model: the model's name there; "" where the server has only one.
        queries: number of test queries to ask.
        progress: called with what is done next.

    Raises:
        UsageError: no such run, or no address.
        MissingError: the stage was not measured, its dataset is gone, or the server cannot be reached.
    """
    model = trained_model(settings.lab, name)
    check_measured(model, name)
    run = model.run
    if run is None:
        raise MissingError("no run of the lab has this name", where=name)
    condition = condition_of(run.plan)
    path = run.folder.ranking(run.system, condition.dataset, condition.first_stage)
    if not path.is_file():
        raise MissingError("this stage has not re-ranked the test queries yet", where=name)
    server = RerankServer(url, server_model, settings.cache)
    ranking = read_run(path).ranking
    texts = [query for query in some_texts(settings, run.folder, run.plan, queries) if query.query_id in ranking]
    progress(f"asking {server.url} for {counted(sum(len(each.documents) for each in texts), 'score')}")
    own: list[list[float]] = []
    theirs: list[list[float]] = []
    for each in texts:
        stored = dict(zip(ranking[each.query_id], ranking.scores(each.query_id), strict=True))
        own.append([stored[doc] for doc in each.document_ids])
        theirs.append(server.ask(each.query, each.documents).scores)
    is_cut = _cut(model.folder, [each.pairs for each in texts])
    return _compared(run, server.url, own, theirs, is_cut)


def _cut(folder: Path, pairs: Sequence[Sequence[tuple[str, str]]]) -> list[list[bool]]:
    """Return of each pair whether it has more tokens than the model reads."""
    from cerank.models.cross_encoder import CheckpointConfig, load_tokenizer

    tokenizer, limits = load_tokenizer(folder), CheckpointConfig.read(folder).limits

    def length(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    special = int(tokenizer.num_special_tokens_to_add(pair=True))
    out = []
    for of_query in pairs:
        of_text = length(of_query[0][0]) if of_query else 0
        is_long = of_text > limits.max_query_length
        longest = limits.max_document_length or limits.max_length
        lengths = [length(document) for _, document in of_query]
        out.append([is_long or each > longest or of_text + each + special > limits.max_length for each in lengths])
    return out


def _compared(
    run: RunTarget,
    url: str,
    own: Sequence[Sequence[float]],
    theirs: Sequence[Sequence[float]],
    is_cut: Sequence[Sequence[bool]],
) -> ServerCheck:
    flat = [score for scores in own for score in scores]
    other = [score for scores in theirs for score in scores]
    has_sigmoid = all(0 <= score <= 1 for score in other) and not all(0 <= score <= 1 for score in flat)
    if has_sigmoid:
        flat = [_sigmoid(score) for score in flat]
    spread = max(flat) - min(flat)
    allowed = SAME * max(1.0, spread)
    differences = [abs(left - right) for left, right in zip(flat, other, strict=True)]
    cut = [is_long for of_query in is_cut for is_long in of_query]
    reordered, start = 0, 0
    for scores in own:
        stop = start + len(scores)
        reordered += _has_other_order(flat[start:stop], other[start:stop], allowed)
        start = stop
    return ServerCheck(
        url=url,
        system=f"{run.label}, stage {run.system}",
        queries=len(own),
        pairs=len(flat),
        has_sigmoid=has_sigmoid,
        largest=max(differences),
        mean=statistics.fmean(differences),
        cut=sum(cut),
        largest_cut=max((size for size, is_long in zip(differences, cut, strict=True) if is_long), default=0.0),
        largest_whole=max((size for size, is_long in zip(differences, cut, strict=True) if not is_long), default=0.0),
        reordered=reordered,
        correlation=_correlation(flat, other),
        allowed=allowed,
    )


def _sigmoid(score: float) -> float:
    return 1 / (1 + math.exp(-score)) if score >= 0 else math.exp(score) / (1 + math.exp(score))


def _has_other_order(own: Sequence[float], theirs: Sequence[float], allowed: float) -> bool:
    """Return whether two documents that differ by more than `allowed` in both are in another order."""
    order = sorted(range(len(own)), key=lambda place: -own[place])
    highest_later = -math.inf
    for place in reversed(order):
        if highest_later > theirs[place] + allowed:
            return True
        highest_later = max(highest_later, theirs[place])
    return False


def _correlation(left: Sequence[float], right: Sequence[float]) -> float:
    try:
        return statistics.correlation(left, right)
    except statistics.StatisticsError:  # constant scores, or one pair
        return 0.0
