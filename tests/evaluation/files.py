"""Reads the TREC files of test collections in a few lines, so that these tests stand apart from cerank's own reader."""

from __future__ import annotations

from pathlib import Path

from cerank.core.rankings import Ranking, ordered


def qrels_of(path: Path) -> dict[str, dict[str, int]]:
    out: dict[str, dict[str, int]] = {}
    for line in path.read_text().splitlines():
        query, _, doc, grade = line.split()
        out.setdefault(query, {})[doc] = int(grade)
    return out


def scores_of(path: Path) -> dict[str, dict[str, float]]:
    out: dict[str, dict[str, float]] = {}
    for line in path.read_text().splitlines():
        query, _, doc, _, score, _ = line.split()
        out.setdefault(query, {})[doc] = float(score)
    return out


def ranking_of(path: Path) -> Ranking:
    """Ties by document id descending, as trec_eval breaks them, so that its own output can be the reference."""
    scores = scores_of(path)
    return ordered(scores, {query: sorted(docs, reverse=True) for query, docs in scores.items()})
