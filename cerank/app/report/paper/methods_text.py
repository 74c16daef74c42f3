"""The paragraph on methods of a report: what was measured and tested, and how, with a reference for each of it.

Invariant: a sentence stands here only where the comparison did what it says; its numbers are the comparison's own.
"""

from __future__ import annotations

import re
from importlib import metadata

import msgspec

from cerank.app.report.paper.bibliography import ENTRIES, bibtex, cited_as
from cerank.evaluation.compare import Comparison
from cerank.evaluation.multiple_testing import Correction
from cerank.text.safe_text import counted

_KEY = "|".join(["cerank", *ENTRIES])
_CITATION = re.compile(rf"(\[@(?:{_KEY})(?:; @(?:{_KEY}))*\])")
_MEASURES = {"nDCG": "jarvelin2002", "RR": "voorhees1999"}
_METHODS = {
    "holm": "by Holm's method [@holm1979]",
    "bonferroni": "by Bonferroni's method [@dunn1961]",
    "bh": "to a false discovery rate by Benjamini and Hochberg [@benjamini1995]",
    "max-t": "by the step-down maximum statistic of the flipped signs [@westfall1993]",
}
_NAMED = 6  # comparisons that a sentence names one by one


class MethodsText(msgspec.Struct, frozen=True, kw_only=True):
    """Sentences in plain text, in each a reference as `[@key]`."""

    sentences: tuple[str, ...]
    version: str  # of cerank

    @property
    def parts(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return pieces of text, each with the references that follow it."""
        pieces = _CITATION.split(" ".join(self.sentences))
        keys = [tuple(re.findall(r"@(\w+)", piece)) for piece in pieces[1::2]]
        return tuple(zip(pieces[::2], [*keys, ()], strict=True))

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the references in the order in which they are cited."""
        return tuple(dict.fromkeys(key for _, keys in self.parts for key in keys))

    @property
    def plain(self) -> str:
        """Return the paragraph with authors and years."""
        cited = ("; ".join(cited_as(key, self.version) for key in keys) for _, keys in self.parts)
        return "".join(
            text + (f"({names})" if names else "") for (text, _), names in zip(self.parts, cited, strict=True)
        )

    @property
    def bibliography(self) -> str:
        """Return the BibTeX of exactly what is cited."""
        return bibtex(self.keys, self.version)


def methods(comparison: Comparison, version: str, *, pooled_by: Correction | None = None) -> MethodsText:
    """Return the methods of a comparison.

    Args:
        comparison: what was done.
        version: of cerank.
        pooled_by: how p of its rows pooled over several test sets were adjusted; None: nothing was pooled.
    """
    terms = comparison.terms
    sentences = [_measured(comparison), *_primary(comparison), *_tests(comparison), _adjusted(comparison)]
    rate = f"{100 * terms.alpha:.3g}"
    if comparison.method not in {"bh", "none"} and comparison.family > 1:
        sentences.append(
            f"Intervals are simultaneous over the table at {100 * terms.confidence:.3g} %; a verdict is that of its "
            f"adjusted p at {rate} %."
        )
    else:
        sentences.append(f"Intervals have a confidence of {100 * terms.confidence:.3g} % each, before any adjustment.")
    for name, margin in terms.margins.items():
        when = f"declared {margin.declared or 'before the runs'}" if margin.before else "chosen after the results"
        because = f", because {margin.because}" if margin.because else ""
        sentences.append(
            f"Two systems are called equivalent by {name} where two one-sided tests show a difference within "
            f"±{margin.shown} [@schuirmann1987], a margin {when}{because}."
        )
    if terms.margins:
        sentences.append("Tests of difference and of equivalence are one family [@marcus1976; @goeman2010].")
    for name, gain in terms.worth.items():
        when = "declared before the runs" if gain.before else "chosen after the results"
        sentences.append(
            f"Whether a gain of {gain.shown} by {name}, {when}, is reached or ruled out is read off the same "
            "intervals [@goeman2010]."
        )
    if pooled_by is not None:
        how = "not adjusted" if pooled_by == "none" else f"adjusted {_METHODS[pooled_by]}"
        sentences.append(
            "Over the test sets, differences are pooled by a random-effects model: the variance between test sets by "
            "restricted maximum likelihood [@viechtbauer2005], the interval after Hartung and Knapp [@hartung2001], "
            f"what a new test set would show by a prediction interval [@higgins2009]; pooled p are {how}."
        )
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("ir-measures", "scipy", "numpy"))
    sentences.append(f"Computed by cerank {version} [@cerank] with {packages} [@macavaney2022; @virtanen2020].")
    return MethodsText(sentences=tuple(sentences), version=version)


def _measured(comparison: Comparison) -> str:
    """Return what was measured, on what."""
    keys = [key for name, key in _MEASURES.items() if any(_base(measure) == name for measure in comparison.measures)]
    cited = f" [{'; '.join(f'@{key}' for key in keys)}]" if keys else ""
    sizes = dict.fromkeys(f"{row.paired.n:,} of {row.condition.dataset}" for row in comparison.rows)
    return (
        f"Systems are compared by {', '.join(comparison.measures)}{cited}, query by query: {', '.join(sizes)}; a query "
        "without results counts 0."
    )


def _primary(comparison: Comparison) -> list[str]:
    """Return which comparisons have a verdict, where others only describe."""
    primary_rows = [row for row in comparison.rows if row.is_primary]
    if len(primary_rows) == len(comparison.rows):
        return []
    pairs = dict.fromkeys(f"{row.right} against {row.left} by {row.measure}" for row in primary_rows)
    named = ", ".join(pairs) if len(pairs) <= _NAMED else f"{len(pairs)} comparisons"
    return [f"Primary, and alone with a verdict: {named or 'none'}; all other differences describe."]


def _base(measure: str) -> str:
    return re.split(r"[@(]", measure)[0]


def _tests(comparison: Comparison) -> list[str]:
    """Return which tests the rows' p came from."""
    bases = dict.fromkeys(row.judgment.basis for row in comparison.rows if row.verdict != "identical")
    terms = comparison.terms
    texts = {
        "t": (
            "Differences of means are tested by two-sided paired t-tests [@urbano2019]; Wilcoxon's and the sign test, "
            "which another simulation prefers [@parapar2020], ask about the median."
        ),
        "sign flips": (
            f"Differences of means are tested by flipping the signs of whole queries {terms.rounds:,} times "
            "[@fisher1935; @westfall1993]."
        ),
        "exact sign flips": (
            "Where fewer than 10 queries differ, or all by the same, all patterns of signs are counted [@fisher1935]."
        ),
        "seeds": _seeds(comparison),
    }
    return [texts[basis] for basis in bases]


def _seeds(comparison: Comparison) -> str:
    """Return how the spread of seeds counts."""
    recipes = [row.recipes for row in comparison.rows if row.recipes is not None]
    if not recipes:
        return ""
    counts = sorted({max(each.seeds_left, each.seeds_right) for each in recipes})
    paired = [each.is_paired for each in recipes]
    how = "as samples beside queries"
    if any(paired):
        how = "crossed with queries, as pairs"
        how += "" if all(paired) else " where two recipes share their draws, else as samples beside queries"
    return (
        f"Claims are about recipes: {', '.join(map(str, counts))} seeds count {how} [@bodoff2007], with degrees of "
        "freedom after Satterthwaite [@satterthwaite1946]."
    )


def _adjusted(comparison: Comparison) -> str:
    """Return how p was adjusted, over how many comparisons."""
    many, alpha = counted(comparison.family, "comparison"), f"{100 * comparison.terms.alpha:.3g} %"
    if comparison.family <= 1 or comparison.method == "none":
        return f"p is not adjusted ({many})."
    return f"p is adjusted over {many} at {alpha} {_METHODS[comparison.method]}."
