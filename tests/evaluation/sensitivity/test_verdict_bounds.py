"""Bounds by unjudged and by tied documents, against every judging and every order of small cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from cerank.core.rankings import Ranking, ordered
from cerank.evaluation.compare import Condition, System, Terms, compare, measured
from cerank.evaluation.measures import per_query
from cerank.evaluation.sensitivity.extreme_statistics import t_of
from cerank.evaluation.sensitivity.verdict_bounds import VerdictRule, bounds_of, tied_groups
from cerank.evaluation.verdicts.terms import Margin
from cerank.trec.text_io import read_qrels, read_run

DOCS = ("a", "b", "c", "d", "e", "f", "g", "h")


def ranked(lists):
    return Ranking(lists, {query: [float(-place) for place in range(len(docs))] for query, docs in lists.items()})


def difference(measure, qrels, left, right):
    first, second = (per_query((measure,), qrels, side)[measure] for side in (left, right))
    return np.array([second[query] - value for query, value in first.items()])


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    "measure",
    [
        *("nDCG@3", "nDCG@5", "RR@4", "RR(rel=2)@4", "P@3", "R@4", "R(rel=2)@3", "Success@3"),
        *("AP@4", "AP(rel=2)@5", "AP", "Rprec", "Rprec(rel=2)"),
    ],
)
def test_limits_are_those_of_every_judging(measure, seed):
    random = np.random.default_rng(seed)
    orders = [tuple(random.permutation(DOCS)) for _ in range(2)]
    judged = {str(doc): int(random.integers(0, 3)) for doc in random.choice(DOCS, 5, replace=False)}
    qrels = {"q": judged, "r": {"z": 2}}  # the second has the largest grade and no ranking
    left, right = ranked({"q": orders[0]}), ranked({"q": orders[1]})
    cutoff = int(measure.rpartition("@")[2]) if "@" in measure else len(DOCS)
    unjudged = [doc for doc in dict.fromkeys([*orders[0][:cutoff], *orders[1][:cutoff]]) if doc not in judged]
    every = [
        difference(measure, {**qrels, "q": judged | dict(zip(unjudged, grades, strict=True))}, left, right).mean()
        for grades in itertools.product(range(3), repeat=len(unjudged))
    ]
    found, candidates = bounds_of(measure, qrels, left, right, None)
    assert (found.unjudged_low, found.unjudged_high) == pytest.approx((min(every), max(every)), abs=1e-12)
    assert (found.unjudged, found.is_exact) == (len(unjudged), True)
    for each in candidates:
        changed = {**qrels, "q": judged | {each.document: 2}}
        moved = difference(measure, changed, left, right) - difference(measure, qrels, left, right)
        assert each.gain == pytest.approx(abs(moved.mean()), abs=1e-12)


@pytest.mark.parametrize("measure", ["nDCG@3", "RR@4", "AP", "P@3", "Rprec"])
def test_tie_limits_are_those_of_every_order(measure):
    scores = {"q": {"a": 3.0, "b": 2.0, "c": 2.0, "d": 2.0, "e": 1.0, "f": 1.0}}
    qrels = {"q": {"a": 0, "b": 1, "c": 0, "d": 2, "f": 1}}
    left, right = ranked({"q": ("e", "d", "a", "b")}), ordered(scores)
    orders = [
        ("a", *middle, *last) for middle in itertools.permutations("bcd") for last in itertools.permutations("ef")
    ]
    every = [difference(measure, qrels, left, ranked({"q": order})).mean() for order in orders]
    found, _ = bounds_of(measure, qrels, left, right, None)
    assert (found.ties_low, found.ties_high) == pytest.approx((min(every), max(every)), abs=1e-12)
    assert found.tied_queries == 1


def test_groups_of_ties_are_those_that_ordering_moved_apart():
    scores = ordered({"q": {"a": 3.0, "b": 2.0, "c": 2.0, "d": 2.0, "e": 1.0, "f": 1.0}}).scores("q")
    assert tied_groups(scores) == [(1, 4), (4, 6)]
    assert tied_groups((3.0, 2.0, 1.0)) == []
    assert tied_groups(()) == []


def made(n=30, unjudged=2, seed=0):
    """Queries over which the right side is better by its first document."""
    random = np.random.default_rng(seed)
    qrels, left, right = {}, {}, {}
    for number in range(n):
        name = f"q{number}"
        qrels[name] = {"good": 1, "bad": 0}
        place = int(random.integers(2, 5))
        left[name] = ("bad", *[f"u{at}" for at in range(place - 2)], "good")
        right[name] = ("good", "bad") if number % 5 else ("bad", "good")
        if number >= unjudged:
            qrels[name] |= {f"u{at}": 0 for at in range(3)}
    return qrels, ranked(left), ranked(right)


def test_a_flip_is_one_by_the_judgments_it_names_and_fewer_were_not_found_by_chance():
    qrels, left, right = made(n=12, unjudged=12)
    d = difference("RR@10", qrels, left, right)
    rule = VerdictRule(critical=0.8 * t_of(d))
    assert rule.states(d) == (True, False, False)
    found, candidates = bounds_of("RR@10", qrels, left, right, rule)
    assert (found.judgments, found.unjudged) == ("flips", len(candidates))
    assert found.flips_at == 2
    places = [(each.query, each.document) for each in candidates]
    # Every set of fewer documents leaves the verdict as it is: here the greedy number is the least.
    for size in range(1, found.flips_at):
        for chosen in itertools.combinations(places, size):
            changed = {query: dict(grades) for query, grades in qrels.items()}
            for query, doc in chosen:
                changed[query][doc] = 1
            assert rule.states(difference("RR@10", changed, left, right)) == (True, False, False)
    assert f"flips if {found.flips_at} of {found.unjudged} unjudged documents are relevant" in found.text


def test_a_verdict_that_few_unjudged_documents_cannot_change_holds():
    qrels, left, right = made(n=40, unjudged=1)
    rule = VerdictRule(critical=2.0)
    found, _ = bounds_of("RR@10", qrels, left, right, rule)
    assert (found.judgments, found.flips_at) == ("holds", None)
    assert "holds under every judging" in found.text


def test_an_equivalence_is_left_and_come_into_as_well():
    qrels, left, _ = made(n=40, unjudged=40, seed=3)
    same = VerdictRule(critical=2.0, margin=0.1, critical_within=1.7)
    found, _ = bounds_of("RR@10", qrels, left, left, same)
    assert found.judgments == "holds"  # no query differs, whatever is judged, and the exact test of none says so
    near = ranked({query: (docs[0], *reversed(docs[1:])) for query, docs in left.items()})
    d = difference("RR@10", qrels, left, near)
    found, _ = bounds_of("RR@10", qrels, left, near, same)
    assert same.states(d) != (False, False, True)
    assert found.judgments == "flips"


@pytest.mark.parametrize(("differing", "margin", "within"), [(9, 0.1, True), (9, 0.004, False), (12, 0.004, True)])
def test_few_differing_queries_are_judged_by_exact_flips_under_every_judging_too(differing, margin, within):
    """The queries that differ are wholly judged: their one relevant document stands at rank 9 or 10, in turn.

    By t, all three lie within; with one query more that differs by a quarter of the range, nine do not within .004.
    """
    docs = [f"d{place}" for place in range(10)]
    swapped = [*docs[:8], docs[9], docs[8]]
    names = [f"q{at}" for at in range(40)]
    qrels = {
        name: {doc: int(doc == "d9") for doc in docs} if at < differing else {"d0": 1} for at, name in enumerate(names)
    }
    left = ranked({name: swapped if at < differing and at % 2 else docs for at, name in enumerate(names)})
    right = ranked({name: swapped if at < differing and not at % 2 else docs for at, name in enumerate(names)})
    rule = VerdictRule(critical=2.0, margin=margin, critical_within=1.7)
    d = difference("RR@10", qrels, left, right)
    assert min(t_of(margin - d), t_of(margin + d)) > 1.7
    assert rule.states(d) == (False, False, within)
    assert bounds_of("RR@10", qrels, left, right, rule)[0].judgments == "holds"


def judged_again(measure, qrels, left, right, margin, alpha):
    """The verdict of a comparison of two rankings, by the program itself."""
    where = Condition("made")
    systems = [
        System(label=label, measured=(measured([measure], where, qrels, "x", ranking),))
        for label, ranking in (("left", left), ("right", right))
    ]
    margins = {} if margin is None else {measure: Margin(value=margin)}
    return compare(systems, [measure], terms=Terms(margins=margins, confidence=1 - alpha)).rows[0]


@pytest.mark.parametrize("seed", range(20))
def test_what_is_said_of_few_differing_queries_is_what_the_verdict_would_be_under_every_judging(seed):
    random = np.random.default_rng(seed)
    measure = ("RR@3", "nDCG@3", "P@3")[seed % 3]
    n, differing = int(random.integers(10, 30)), int(random.integers(5, 12))
    qrels, left, right = {}, {}, {}
    for number in range(n):
        name, docs = f"q{number}", ["a", "b", "c", "d"]
        qrels[name] = {"a": 1, "b": 0, "c": 0, "d": 0}
        moved = ["b", "c", "a", "d"] if random.random() < 0.9 else docs
        left[name], right[name] = (moved, docs) if number < differing else (docs, docs)
    for number in random.choice(n, 5, replace=False):  # one document each is not judged
        del qrels[f"q{number}"]["bcd"[int(random.integers(0, 2))]]
    left, right = ranked(left), ranked(right)
    margin, alpha = (None, 0.05, 0.3)[int(random.integers(0, 3))], (0.05, 0.2)[seed % 2]
    row = judged_again(measure, qrels, left, right, margin, alpha)
    rule = VerdictRule(
        critical=-stats.t.ppf(row.judgment.level / 2, n - 1),
        margin=margin,
        critical_within=None if margin is None else -stats.t.ppf(row.judgment.equivalence_level, n - 1),
    )
    found, _ = bounds_of(measure, qrels, left, right, rule)
    seen = [[doc for doc in dict.fromkeys([*left[q][:3], *right[q][:3]]) if doc not in qrels[q]] for q in qrels]
    open_ = [(query, doc) for query, docs in zip(qrels, seen, strict=True) for doc in docs]
    assert found.unjudged == len(open_)
    fewest = None
    for grades in itertools.product((0, 1), repeat=len(open_)):
        changed = {query: dict(of) for query, of in qrels.items()}
        for (query, doc), grade in zip(open_, grades, strict=True):
            changed[query][doc] = grade
        if judged_again(measure, changed, left, right, margin, alpha).verdict != row.verdict:
            fewest = min(sum(grades), fewest if fewest is not None else 99)
    assert found.judgments == ("holds" if fewest is None else "flips")
    if fewest is not None:
        assert fewest <= found.flips_at <= len(open_)


def test_measures_without_bounds_say_so():
    qrels, left, right = made()
    assert "no bounds for ERR" in bounds_of("ERR@10", qrels, left, right, None)[0].why_not
    assert "judged documents only" in bounds_of("nDCG(judged_only=True)@10", qrels, left, right, None)[0].why_not


def test_many_unjudged_documents_get_wider_limits_and_say_so():
    docs = tuple(f"d{at}" for at in range(120))
    qrels = {"q": {"d0": 3, "d1": 1}, "r": {"x": 1}}
    left, right = ranked({"q": docs}), ranked({"q": docs[::-1]})
    found, _ = bounds_of("nDCG@60", qrels, left, right, None)
    assert not found.is_exact
    random = np.random.default_rng(2)
    for _ in range(40):
        grades = {doc: int(random.integers(0, 4)) for doc in docs if doc not in qrels["q"]}
        value = difference("nDCG@60", {**qrels, "q": grades | qrels["q"]}, left, right).mean()
        assert found.unjudged_low <= value <= found.unjudged_high


@pytest.mark.parametrize(("left", "right"), [("bm25", "tasb"), ("tasb", "splade-pp-ed"), ("splade-pp-ed", "ada2")])
def test_public_runs_of_trec_dl_2020_lie_within_their_bounds_and_flips_are_real(shared, left, right):
    folder = shared / "trec-dl-2020-top100"
    qrels = read_qrels(folder / "qrels")
    sides = [read_run(folder / "runs" / f"{name}.run").ranking for name in (left, right)]
    rule = VerdictRule(critical=2.0057)
    d = difference("nDCG@10", qrels, *sides)
    found, candidates = bounds_of("nDCG@10", qrels, *sides, rule)
    assert found.unjudged_low <= d.mean() <= found.unjudged_high
    assert found.unjudged == len(candidates)
    assert math.isclose(candidates[0].gain, max(each.gain for each in candidates))
