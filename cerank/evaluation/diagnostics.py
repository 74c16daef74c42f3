"""What a reader must know of the data beside a table: unjudged documents, ties, depth, queries no one can answer.

Invariant: it reports and never repairs; no query or document is dropped here.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from cerank.core.rankings import Ranking, float32_below
from cerank.evaluation import measures as by_name
from cerank.evaluation.significance import Paired
from cerank.text.safe_text import counted

GAP = 0.05  # difference in judged shares above which unjudged documents may explain a difference
SKEWED = 1.0  # skewness of the differences above which, with fewer than `FEW` queries, the tests err too often
FEW = 60
GRADED = 3  # largest grade from which on grade 1 is no more than related, as in TREC DL
MANY_TIES = 0.1  # share of tied neighbors above which their order may well decide
ROUNDING = 1e-9  # values that differ by less are the same
MANY_ZEROS = 0.5  # share of zero differences above which few queries carry the comparison


Floats = npt.NDArray[np.float64]


class RankingDiagnostics(msgspec.Struct, frozen=True, kw_only=True):
    """Judged share, ties and depth of a ranking on a set of qrels."""

    judged: dict[str, float]  # measure -> mean share of judged documents down to its cutoff (10 where it has none)
    answerless: dict[str, int]  # measure -> queries in whose qrels no document meets its threshold
    ties: float  # share of neighbors in the top 10 whose scores lie one float32 apart: ties that were broken
    largest: int = 0  # grade in the qrels
    shallowest: int  # documents ranked for the query with fewest, among those ranked
    deepest: int


class Note(msgspec.Struct, frozen=True):
    """One thing to say under a table about one comparison."""

    kind: str  # such as "missing", "ignored", "judged", "answerless", "ties", "depth", "zeros", "one seed"
    text: str


def of_ranking(names: Sequence[str], qrels: by_name.Qrels, ranking: Ranking) -> RankingDiagnostics:
    """Return the facts of a ranking; `names` are canonical measures."""
    ranked = [query for query in qrels if ranking.get(query)]
    depths = [len(ranking[query]) for query in ranked]
    shapes = {name: by_name.shape(name) for name in names}
    return RankingDiagnostics(
        judged={
            name: 1.0 if by_name.is_condensed(name) else _judged(qrels, ranking, ranked, shape.cutoff or 10)
            for name, shape in shapes.items()
        },
        answerless={name: len(answerless(qrels, shape.rel)) for name, shape in shapes.items()},
        ties=_ties(ranking, ranked),
        largest=max((grade for judged in qrels.values() for grade in judged.values()), default=0),
        shallowest=min(depths, default=0),
        deepest=max(depths, default=0),
    )


def answerless(qrels: by_name.Qrels, rel: int = 1) -> tuple[str, ...]:
    """Return the queries without a document of grade `rel` or more: they score 0 for every system."""
    return tuple(query for query, judged in qrels.items() if max(judged.values(), default=0) < rel)


def notes(
    measure: str,
    left: tuple[str, RankingDiagnostics | None],
    right: tuple[str, RankingDiagnostics | None],
    *,
    n: int,
    zeros: int,
) -> tuple[Note, ...]:
    """Return what is to be said of one comparison; each side is a label and its facts, if known.

    Args:
        n: queries compared.
        zeros: of them with the same score on both sides.
    """
    out = []
    if zeros > MANY_ZEROS * n:
        rest = counted(n - zeros, "query")
        text = f"{zeros} of {counted(n, 'query')} have the same score in both"
        out.append(Note("zeros", f"{text}; the whole difference comes from {rest}" if n > zeros else text))
    (left_label, first), (right_label, second) = left, right
    if first is None or second is None:
        return tuple(out)
    if first.answerless.get(measure):
        count = first.answerless[measure]
        out.append(
            Note(
                "answerless",
                f"{count} of {counted(n, 'query')} without a relevant document: they score 0 for every system",
            )
        )
    if first.largest >= GRADED and (other := by_name.is_of_grade_one(measure)):
        text = f"{measure} counts grade 1 as relevant, of grades up to {first.largest}; TREC DL counts 2: {other}"
        out.append(Note("grade", text))
    shares = first.judged.get(measure, 1.0), second.judged.get(measure, 1.0)
    if abs(shares[0] - shares[1]) > GAP:
        out.append(Note("judged", _of_judged(by_name.shape(measure).cutoff or 10, left_label, right_label, shares)))
    for label, fact in ((left_label, first), (right_label, second)):
        if fact.ties > 0:
            share = f"{100 * fact.ties:.1f} % of the neighboring scores of '{label}' in the top 10"
            why = "what another order of them could change is shown by cerank compare --bounds"
            kind = "many ties" if fact.ties > MANY_TIES else "ties"
            out.append(Note(kind, f"{share} are equal or one float32 apart; {why}"))
    if (first.shallowest, first.deepest) != (second.shallowest, second.deepest):
        depths = [f"{f.shallowest}-{f.deepest}" for f in (first, second)]
        out.append(
            Note(
                "depth",
                f"unequal depth: '{left_label}' ranks {depths[0]} documents, '{right_label}' {depths[1]}",
            )
        )
    return tuple(out)


def of_skewness(gains: Floats) -> Note | None:
    """Return the skewness of per-query differences where it makes the tests err more often than promised.

    Simulated (tests/simulations/RESULTS.md): at skewness 1.1 and 43 queries a paired t-test errs in .060, a table of
    six by Holm in .068 and by max-t in .080, where .050 is promised; with 200 queries in at most .060.
    """
    centered = gains - gains.mean()
    spread = float((centered**2).mean()) ** 0.5
    if gains.size >= FEW or spread == 0:
        return None
    skewness = float((centered**3).mean()) / spread**3
    return Note("skewed", f"skewness {skewness:+.1f}") if abs(skewness) > SKEWED else None


def of_rare_differences(differing: int, n: int, share: float, alpha: float) -> Note | None:
    """Return what an equivalence by flipped signs cannot rule out: that other queries differ, rarely and by much.

    Args:
        differing: queries that differ.
        n: all queries.
        share: the margin as a share of the largest difference that the measure allows. As many queries at least would
            differ by that much, were the mean difference as large as the margin.
        alpha: error rate of the verdict, above which the probability of so few differing queries is told.
    """
    from scipy.special import bdtr

    probability = float(bdtr(differing, n, min(1.0, share)))
    if probability <= alpha:
        return None
    text = (
        f"{differing} of {counted(n, 'query')} differ; as few would with probability {probability:.2f} if rare "
        "differences of the size that the measure allows made up the margin: the equivalence speaks for these queries, "
        "and little for others"
    )
    return Note("rare", text)


def of_room(measure: str, label: str, room: float) -> Note | None:
    """Return that no gain over a system is possible by a measure, where it has the largest value on every query.

    Args:
        measure: the measure.
        label: of the baseline.
        room: what is left between its mean and the largest value that the measure can have.
    """
    if room > ROUNDING:
        return None
    return Note("no room", f"'{label}' has the largest {measure} there is on every query: no gain is possible here")


def of_unseen_difference(figures: Paired, unseen: float, margin: float) -> Note:
    """Return why so few queries that differ do not show equivalence, though they lie within the margin.

    Args:
        figures: of the row.
        unseen: how much one query more must differ for equivalence not to be shown.
        margin: the largest difference that does not matter.
    """
    differing = figures.wins + figures.losses
    few = f"{differing} of {counted(figures.n, 'query')} {'differs' if differing == 1 else 'differ'}"
    text = (
        f"{few}, too few to show that the two are the same within ±{margin:g}: with one more query that differs by "
        f"{unseen:.2g}, it would not be shown, and rare differences of that size easily go unseen"
    )
    return Note("unseen", text)


def _of_judged(depth: int, left: str, right: str, shares: tuple[float, float]) -> str:
    """Return the judged shares of both sides, without a measure's name: measures of one depth share the note."""
    parts = [f"{100 * share:.0f} % of '{label}'" for share, label in zip(shares, (left, right), strict=True)]
    loser = left if shares[0] < shares[1] else right
    return (
        f"judged documents in the top {depth}: {parts[0]}, {parts[1]}; unjudged ones count as not relevant, which may "
        f"cost '{loser}', and --judged-only measures without them"
    )


def merged(facts_of_seeds: Sequence[RankingDiagnostics | None]) -> RankingDiagnostics | None:
    """Return the facts of several seeds as one: mean shares, extreme depths; None where one is unknown."""
    known = [fact for fact in facts_of_seeds if fact is not None]
    if not known or len(known) < len(facts_of_seeds):
        return None
    return RankingDiagnostics(
        judged=_mean([fact.judged for fact in known]),
        answerless=known[0].answerless,
        ties=sum(fact.ties for fact in known) / len(known),
        largest=known[0].largest,
        shallowest=min(fact.shallowest for fact in known),
        deepest=max(fact.deepest for fact in known),
    )


def condensed(names: Sequence[str]) -> tuple[str, ...]:
    """Return the same measures over judged documents only; those that cannot differ as they are."""
    return tuple(by_name.condensed(name) for name in names)


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def _judged(qrels: by_name.Qrels, ranking: Ranking, ranked: Sequence[str], cutoff: int) -> float:
    """Return the mean share over the ranked queries, as ir_measures' Judged counts it: over the documents there are."""
    shares = [
        sum(doc in qrels[query] for doc in ranking[query][:cutoff]) / len(ranking[query][:cutoff]) for query in ranked
    ]
    return sum(shares) / len(shares) if shares else 0.0


def _ties(ranking: Ranking, ranked: Sequence[str]) -> float:
    neighbors = [pair for query in ranked for pair in itertools.pairwise(ranking.scores(query)[:10])]
    return sum(low == float32_below(high) for high, low in neighbors) / len(neighbors) if neighbors else 0.0


def ceiling(ranking: Ranking, qrels: by_name.Qrels, measure: str = "nDCG@10") -> dict[str, float]:
    """Return the best value that any order of each query's candidates has: the candidates sorted by their grades."""
    best = {
        query: tuple(sorted(ranking.get(query, ()), key=lambda doc: -grades.get(doc, 0)))
        for query, grades in qrels.items()
    }
    scores = {query: [float(len(docs) - rank) for rank in range(len(docs))] for query, docs in best.items()}
    return by_name.per_query((measure,), qrels, Ranking(best, scores))[measure]


def ceiling_note(ranking: Ranking, qrels: by_name.Qrels) -> str:
    """Return how many queries no re-ranker can help, and the best nDCG@10 then; "" if it can help all."""
    answerable = {query: grades for query, grades in qrels.items() if max(grades.values(), default=0) > 0}
    without = sum(
        not any(grades.get(doc, 0) > 0 for doc in ranking.get(query, ())) for query, grades in answerable.items()
    )
    if not without:
        return ""
    if without == len(answerable):
        return (
            f"no candidate of its {counted(without, 'query')} is relevant, so every re-ranker scores 0; "
            "are the document ids of the qrels those of the collection?"
        )
    values = ceiling(ranking, answerable)
    return (
        f"the candidates of {without} of {counted(len(answerable), 'query')} hold no relevant document; "
        f"the best possible nDCG@10 is {sum(values.values()) / len(values):.4f}"
    )


def no_room_note(ranking: Ranking, qrels: by_name.Qrels, measure: str = "nDCG@10") -> str:
    """Return that no re-ranker can gain, where the candidates stand in the best of their orders already; else ""."""
    answerable = {query: grades for query, grades in qrels.items() if max(grades.values(), default=0) > 0}
    if not answerable:
        return ""
    best, now = ceiling(ranking, answerable, measure), by_name.per_query((measure,), answerable, ranking)[measure]
    mean = sum(now.values()) / len(now)
    if mean == 0 or any(best[query] - now[query] > ROUNDING for query in answerable):
        return ""
    return f"no order of its candidates has a larger {measure} ({mean:.4f}) on any query, so no re-ranker can gain"
