"""A table of means in which letters say which other systems each beats: the field's convention, for a paper.

Invariant: a letter stands where the comparison's own verdict, adjusted over its whole table, says better.
"""

from __future__ import annotations

import statistics
import string

from cerank.evaluation.compare import Comparison
from cerank.evaluation.comparison_rows import family
from cerank.text import escapes


def latex(comparison: Comparison) -> str:
    """Return a threeparttable of every system's means, with the letters of the systems that it beats.

    The document needs `\\usepackage{booktabs,threeparttable}`.
    """
    labels = [system.label for system in comparison.systems]
    letters = dict(zip(labels, _letters(len(labels)), strict=True))
    places = [(condition, measure) for condition in comparison.conditions for measure in comparison.measures]
    beaten: dict[tuple[str, object, str], list[str]] = {}
    for row in comparison.rows:
        is_better = row.verdict == "better" or (row.verdict == "different but negligible" and row.paired.difference > 0)
        is_worse = row.verdict == "worse" or (row.verdict == "different but negligible" and row.paired.difference < 0)
        if is_better or is_worse:
            winner, loser = (row.right, row.left) if is_better else (row.left, row.right)
            beaten.setdefault((winner, row.condition, row.measure), []).append(letters[loser])
    heads = [escapes.latex(f"{measure}, {condition}") for condition, measure in places]
    lines = [
        *("% needs \\usepackage{booktabs,threeparttable}", "\\begin{table}", "\\centering", "\\begin{threeparttable}"),
        "\\caption{Means, with the letters of the systems that each beats}",
        f"\\begin{{tabular}}{{ll{'l' * len(places)}}}",
        "\\toprule",
        " & ".join(["", "system", *heads]) + r" \\",
        "\\midrule",
    ]
    for system in comparison.systems:
        cells = [letters[system.label], escapes.latex(system.label)]
        for condition, measure in places:
            at = next(entry for entry in system.measured if entry.condition == condition)
            above = "".join(sorted(beaten.get((system.label, condition, measure), [])))
            mean = f"{statistics.fmean(at.values[measure].values()):.4f}"
            cells.append(f"{mean}$^{{\\mathrm{{{above}}}}}$" if above else mean)
        lines.append(" & ".join(cells) + r" \\")
    rate = f"{100 * comparison.terms.alpha:.3g}"
    notes = [
        f"A letter: better than the system of that letter, by the p adjusted over the table at {rate} %",
        family(comparison),
        *dict.fromkeys(
            f"{measure}: two systems may differ by less than the margin of {margin.value:g} and still have a letter"
            for measure, margin in comparison.terms.margins.items()
        ),
    ]
    items = [f"\\item {escapes.latex(note)}" for note in notes]
    lines += ["\\bottomrule", "\\end{tabular}", "\\begin{tablenotes}\\footnotesize", *items, "\\end{tablenotes}"]
    return "\n".join([*lines, "\\end{threeparttable}", "\\end{table}"]) + "\n"


def _letters(count: int) -> list[str]:
    """Return a, b, ... z, then a2, b2, ..."""
    alphabet = string.ascii_lowercase
    return [alphabet[at % 26] + (str(at // 26 + 1) if at >= 26 else "") for at in range(count)]
