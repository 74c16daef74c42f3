"""Measures by the field's names, one value per query: the everyday ones in arrays, the rest by ir_measures.

Invariant: no tie reaches a provider (they break ties differently), and every judged query has a value.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from cerank.core.rankings import Ranking
from cerank.errors import UsageError
from cerank.registry import nearest, nearest_name

if TYPE_CHECKING:
    from cerank.evaluation.fast_measures import MeasureSpec

Qrels = Mapping[str, Mapping[str, int]]  # query id -> document id -> grade
Lists = Mapping[str, Sequence[str]]  # query id -> document ids in strict order

_EXAMPLES = "such as nDCG@10, RR@10, AP(rel=2), R(rel=2)@100"
_REFUSED = {
    "NumQ": "counts queries and says nothing of a ranking",
    "NumRel": "counts the qrels and says nothing of a ranking",
    "Accuracy": "has no value for a query without a relevant document, so queries cannot be paired",
}


class Shape(msgspec.Struct, frozen=True):
    """How deep a measure looks and from which grade a document counts as relevant."""

    cutoff: int | None
    rel: int


def check(names: Sequence[str], qrels: Qrels, where: str) -> tuple[str, ...]:
    """Return the canonical names (`MRR@10` becomes `RR@10`), each once, in the order given.

    Args:
        names: ir_measures' names, or their aliases.
        qrels: what they will be computed on; it decides whether a relevance threshold can be met.
        where: the option or file the names came from, for the error.

    Raises:
        UsageError: an unknown or malformed name; one that cannot be computed here; one that these qrels make 0 for
            every ranking.
    """
    if not names:
        raise UsageError(
            "no measure is named", where=where, hint=f"name at least one, {_EXAMPLES}", code="measures-missing"
        )
    grades = {grade for judged in qrels.values() for grade in judged.values()}
    if not grades:
        raise UsageError("the qrels judge no document, so nothing can be measured", where=where, code="no-judgments")
    canonical: dict[str, None] = {}
    for name in (part for listed in names for part in re.split(r",(?![^(]*\))", listed)):
        measure = _parsed(name, where)
        _refuse_uncomputable(name, measure, where)
        _refuse_always_zero(name, measure, max(grades), where)
        canonical[str(measure)] = None
    return tuple(canonical)


def canonical(name: str, where: str) -> str:
    """Return a measure's canonical name, whatever it will be computed on.

    Raises:
        UsageError: an unknown or malformed name.
    """
    return str(_parsed(name, where))


def per_query(names: Sequence[str], qrels: Qrels, ranking: Ranking) -> dict[str, dict[str, float]]:
    """Measure -> query -> value, for every query of the qrels and in their order.

    A query the ranking lacks counts 0 (as trec_eval -c does); a query without qrels is ignored.

    Args:
        names: as `check` returned them.

    Raises:
        UsageError: a provider cannot compute a measure on these qrels.

    Example:
        >>> from cerank.core.rankings import ordered
        >>> qrels = {"q1": {"d1": 1}, "q2": {"d2": 1}}
        >>> per_query(["RR@10"], qrels, ordered({"q1": {"d3": 2.0, "d1": 1.0}}))
        {'RR@10': {'q1': 0.5, 'q2': 0.0}}
    """
    plain = {name: _plain(_parsed(name, "")) for name in names}
    is_condensed = {name: str(_parsed(name, "")) != str(plain[name]) for name in names}
    values = _values({name: plain[name] for name in names if not is_condensed[name]}, qrels, ranking)
    condensed = {name: plain[name] for name in names if is_condensed[name]}
    if condensed:
        judged = {
            query: tuple(doc for doc in ranking.get(query, ()) if doc in grades) for query, grades in qrels.items()
        }
        values |= _values(condensed, qrels, judged)
    return {name: values[name] for name in names}


def _values(measures: Mapping[str, Any], qrels: Qrels, ranking: Lists) -> dict[str, dict[str, float]]:
    """Return values by measure and query of measures that take the lists as they are."""
    from cerank.evaluation import fast_measures

    fast = {name: shape_of_it for name, measure in measures.items() if (shape_of_it := _fast(measure)) is not None}
    rest = {str(measure): name for name, measure in measures.items() if name not in fast}
    values = fast_measures.per_query(fast, qrels, ranking)
    if rest:
        others = by_ir_measures(tuple(rest), qrels, ranking)
        values |= {name: others[measure] for measure, name in rest.items()}
    return values


def by_ir_measures(names: Sequence[str], qrels: Qrels, ranking: Lists) -> dict[str, dict[str, float]]:
    """Compute every measure by ir_measures: the reference, and for what `fast_measures` does not compute."""
    import ir_measures

    measures = {_parsed(name, ""): name for name in names}
    # Numbers from 1 stand for query ids: gdeval cuts letters and leading zeros off an id and would lose the query.
    number = {query: str(place) for place, query in enumerate(qrels, start=1)}
    query_of = {place: query for query, place in number.items()}
    deepest = _deepest(measures)
    run: dict[str, dict[str, float]] = {}
    for query, place in number.items():
        ids = ranking.get(query, ())[:deepest]
        if ids:  # the provider of Judged divides by the length of a list
            # Scores of a model may tie in a provider's float32; ranks as scores cannot.
            run[place] = {doc: float(len(ids) - rank) for rank, doc in enumerate(ids)}
    graded = {number[query]: dict(judged) for query, judged in qrels.items()}
    for judged in graded.values():
        if judged and max(judged.values()) < 0:
            # pytrec_eval 0.5 writes beyond an array for a query without a grade of 0 or more; this one no run can hold
            judged[""] = 0
    values = {name: dict.fromkeys(qrels, 0.0) for name in names}
    for together in _apart(measures):
        try:
            for metric in ir_measures.iter_calc(together, graded, run):
                if metric.query_id in query_of:  # gdeval adds a line for the mean
                    values[measures[metric.measure]][query_of[metric.query_id]] = float(metric.value)
        except (ValueError, RuntimeError, subprocess.CalledProcessError) as error:
            failed = ", ".join(measures[measure] for measure in together)
            raise UsageError(f"cannot compute {failed}", hint=f"ir_measures says: {error}") from error
    return values


def _apart(measures: Iterable[Any]) -> list[list[Any]]:
    """Return the measures by calls: ir_measures 0.4 may give plain nDCG the gains of another nDCG in the same call."""
    plain = [measure for measure in measures if "gains" not in measure.params]
    return [*([plain] if plain else []), *([measure] for measure in measures if "gains" in measure.params)]


def shape(name: str) -> Shape:
    """Return a measure's cutoff (None: it reads whole rankings) and its relevance threshold (1 unless named)."""
    measure = _parsed(name, "")
    rel = measure["rel"] if "rel" in measure.SUPPORTED_PARAMS else 1
    return Shape(cutoff=measure.params.get("cutoff"), rel=rel if isinstance(rel, int) else 1)


def condensed(name: str) -> str:
    """Return the measure over judged documents only (a condensed list; Sakai, SIGIR 2007).

    It is the measure of the ranking without its unjudged documents, so every measure has one, but for those that look
    at judged documents anyway or say nothing of relevance: their own name comes back.
    """
    measure = _parsed(name, "")
    if measure.NAME in _ABOUT_JUDGMENTS:
        return str(measure)
    return str(_with_parameters(measure, {**measure.params, "judged_only": True}))


def is_condensed(name: str) -> bool:
    """Return whether a measure leaves unjudged documents out."""
    return bool(_parsed(name, "").params.get("judged_only"))


_UNIT = {  # measures whose values lie from 0 to 1
    *("nDCG", "RR", "AP", "P", "R", "Success", "Rprec", "RBP", "ERR", "Bpref", "infAP", "IPrec", "SetP", "SetR"),
    *("SetF", "SetAP", "Judged", "Compat", "alpha_nDCG", "nERR_IA", "ERR_IA", "P_IA", "AP_IA", "StRecall", "nNRBP"),
}


def limits(name: str) -> tuple[float, float] | None:
    """Return the smallest and the largest value of a measure; None where it has no such limits."""
    return (0.0, 1.0) if _parsed(name, "").NAME in _UNIT else None


def is_of_grade_one(name: str) -> str:
    """Return the measure that counts grade 2 and more as relevant, where `name` counts grade 1, too; else ""."""
    measure = _parsed(name, "")
    if "rel" not in measure.SUPPORTED_PARAMS or measure["rel"] != 1 or measure.NAME in _ABOUT_JUDGMENTS:
        return ""
    return str(_with_parameters(measure, {**measure.params, "rel": 2}))


def _plain(measure: Any) -> Any:
    """Return the measure without the parameter that makes it one over judged documents only."""
    return _with_parameters(measure, {key: value for key, value in measure.params.items() if key != "judged_only"})


_ABOUT_JUDGMENTS = {"Bpref", "infAP", "Judged", "NumRet", "NumRel", "NumQ"}  # a condensed list changes nothing in them


@lru_cache(maxsize=64)
def _class_of(known: Any) -> type[Any]:
    """Return the measure's class, with `judged_only` where ir_measures gives it none: lists are condensed here."""
    own: type[Any] = type(known)
    if "judged_only" in known.SUPPORTED_PARAMS or known.NAME in _ABOUT_JUDGMENTS:
        return own
    from ir_measures.measures import ParamInfo

    kind: Any = ParamInfo
    flag = kind(dtype=bool, default=False, desc="ignore returned documents that do not have relevance judgments")
    return type(own.__name__, (own,), {"SUPPORTED_PARAMS": {**known.SUPPORTED_PARAMS, "judged_only": flag}})


def _with_parameters(measure: Any, params: Mapping[str, Any]) -> Any:
    """Return a measure of the same class with these parameters, in one order so that equal measures have equal text."""
    return type(measure)(**{key: params[key] for key in measure.SUPPORTED_PARAMS if key in params})


_FAST: dict[str, set[str]] = {  # measure -> parameters that `fast_measures` knows; any other goes to ir_measures
    "nDCG": {"cutoff", "dcg"},
    "RR": {"rel", "cutoff"},
    "AP": {"rel", "cutoff"},
    "P": {"rel", "cutoff"},
    "R": {"rel", "cutoff"},
    "Success": {"rel", "cutoff"},
    "Rprec": {"rel"},
}


def _fast(measure: Any) -> MeasureSpec | None:
    """Return the measure as `fast_measures` takes it, or None where only ir_measures computes it."""
    from cerank.evaluation.fast_measures import MeasureSpec

    given = measure.params
    if measure.NAME not in _FAST or not given.keys() <= _FAST[measure.NAME] or given.get("dcg", "log2") != "log2":
        return None
    return MeasureSpec(measure.NAME, given.get("cutoff"), given.get("rel", 1))


def additive(name: str) -> MeasureSpec | None:
    """Return the kind, cutoff and threshold of an everyday measure, its condensed lists aside; None for any other."""
    return _fast(_plain(_parsed(name, "")))


def _deepest(measures: Mapping[Any, str]) -> int | None:
    """Return the rank below which no measure looks; None without a cutoff, or if unjudged documents are skipped."""
    if any("cutoff" not in m.params or m.params.get("judged_only") for m in measures):
        return None
    return max((int(m.params["cutoff"]) for m in measures), default=None)


def _refuse_uncomputable(name: str, measure: Any, where: str) -> None:
    import ir_measures

    if measure.NAME in _REFUSED:
        raise UsageError(f"{name} {_REFUSED[measure.NAME]}", where=where, hint=f"name a measure {_EXAMPLES}")
    providers: Sequence[Any] = ir_measures.DefaultPipeline.providers
    plain = _plain(measure)
    able = [provider for provider in providers if provider.supports(plain)]
    if not any(provider.is_available() for provider in able):
        installation = "; ".join(str(hint) for provider in able if (hint := provider.install_instructions()))
        raise UsageError(
            f"no installed provider computes {name}", where=where, hint=installation or f"others, {_EXAMPLES}"
        )


def _refuse_always_zero(name: str, measure: Any, largest: int, where: str) -> None:
    if measure.NAME in {"Judged", "NumRet"} and "rel" not in measure.params:
        return
    rel = shape(name).rel
    if rel < 1:
        raise UsageError(
            f"{name} counts documents judged irrelevant as relevant",
            where=where,
            hint="rel starts at 1",
            code="measure-counts-irrelevant",
        )
    if largest < rel:
        what = f"{name} is 0 for every ranking: it needs grade {rel}, and the largest grade in the qrels is {largest}"
        hint = f"use rel={largest}" if largest > 0 else "these qrels hold no relevant document"
        raise UsageError(what, where=where, hint=hint, code="measure-always-0")


def _parsed(name: str, where: str) -> Any:
    """Return the ir_measures object of a name, its parameters in one order so that equal measures have equal text.

    ir_measures' own parser uses parts of `ast` that Python 3.14 no longer has, and its errors name no place.
    """
    from ir_measures.measures import registry

    base, params = _pieces(name, where)
    translated = _translated(base) if base not in registry else []
    if len(translated) == 1:
        base, own = _pieces(translated[0], where)
        params = own | params
    if base not in registry:
        raise UsageError(
            f"no measure is called '{name}'", where=where, hint=_hint(name, base, registry), code="unknown-measure"
        )
    known = registry[base]
    kind = _class_of(known)
    params = {known.AT_PARAM if key == "@" else key: value for key, value in params.items()}
    for key, value in params.items():
        if key not in kind.SUPPORTED_PARAMS:
            raise UsageError(f"{name}: {base} has no '{key}'", where=where, hint=nearest(key, kind.SUPPORTED_PARAMS))
        info = kind.SUPPORTED_PARAMS[key]
        is_wrong_bool = isinstance(value, bool) and info.dtype is not bool
        if is_wrong_bool or not info.validate(value) or (key == "cutoff" and value < 1):
            raise UsageError(f"{name}: {key} cannot be {value!r}", where=where, hint=str(info.desc or ""))
    merged = {**known.params, **params}
    for key, info in kind.SUPPORTED_PARAMS.items():
        if info.required and key not in merged:
            example = f"{base}@10" if key == known.AT_PARAM == "cutoff" else f"{base}({key}=...)"
            raise UsageError(f"{name}: {key} is missing", where=where, hint=f"write it as {example}")
    return kind(**{key: merged[key] for key in kind.SUPPORTED_PARAMS if key in merged})


def _pieces(name: str, where: str) -> tuple[str, dict[str, Any]]:
    """Return a name's parts: `AP(rel=2)@100` gives ("AP", {"rel": 2, "@": 100})."""
    malformed = UsageError(
        f"'{name}' is not a measure's name", where=where, hint=f"Name(key=value)@cutoff, {_EXAMPLES}"
    )
    try:
        node = ast.parse(re.sub(r"^([A-Za-z_]+)\.([0-9]+)$", r"\1_\2", name.strip()), mode="eval").body
        params: dict[str, Any] = {}
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            params["@"] = ast.literal_eval(node.right)
            node = node.left
        if isinstance(node, ast.Call):
            if node.args or any(keyword.arg is None for keyword in node.keywords):
                raise malformed
            params |= {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
            node = node.func
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise malformed from error
    if not isinstance(node, ast.Name):
        raise malformed
    return node.id, params


def _hint(name: str, base: str, registry: Mapping[str, Any]) -> str:
    """Return the nearest name: the same letters in another case, those of a family of trec_eval's, or the closest."""
    same = [known for known in registry if known.lower() == base.lower()]
    if same:
        return f"did you mean '{name.replace(base, same[0], 1)}'?"
    family = _translated(base)
    if family:
        return f"trec_eval's {base} stands for {', '.join(family)}"
    near = nearest_name(base, registry)
    return f"did you mean '{name.replace(base, near, 1)}'?" if near else nearest(base, registry)


_OTHER_NAMES = {"ndcg": "nDCG", "map": "AP", "mrr": "RR", "recall": "R", "precision": "P"}  # of ranx, BEIR and mteb


def _translated(base: str) -> list[str]:
    """Return the measures that a name of trec_eval, pytrec_eval or ranx stands for; none for another name."""
    import ir_measures

    if base.lower() in _OTHER_NAMES:
        return [_OTHER_NAMES[base.lower()]]
    stem, _, last = base.rpartition("_")
    trec_name = f"{stem}.{last}" if stem and last.isdigit() else base
    try:
        return [str(measure) for measure in ir_measures.parse_trec_measure(trec_name)]
    except (ValueError, KeyError):
        return []


def relevance_note(names: Sequence[str]) -> str:
    """Return from which grade the measures count a document as relevant; "" where none has such a level."""
    levels: dict[int, list[str]] = {}
    for name in names:
        if "rel" in _parsed(name, "").SUPPORTED_PARAMS:
            levels.setdefault(shape(name).rel, []).append(name)
    parts = [f"from grade {level} for {', '.join(sorted(levels[level]))}" for level in sorted(levels)]
    return f"relevant: {'; '.join(parts)}" if parts else ""
