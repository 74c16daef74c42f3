"""What a JSON document says of itself: its format, the version and the command that made it, and the rules of verdicts.

`cerank compare --json` says more, by `comparison_schema`; the keys that both have are called the same.
"""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cerank.evaluation.compare import Comparison

FORMAT = 1  # of all these documents; a key that goes or changes its meaning takes the next number


def document_meta(**rules: object) -> dict[str, object]:
    """Return the head of a document.

    Args:
        rules: by which the verdicts in it were made, such as alpha and correction.
    """
    from cerank import __version__

    return {"format": FORMAT, "cerank": __version__, "command": shlex.join(["cerank", *sys.argv[1:]]), **rules}


def meta_of_comparison(comparison: Comparison, **more: object) -> dict[str, object]:
    """Return the head of a document whose verdicts are those of a comparison."""
    terms = comparison.terms
    return document_meta(
        confidence=terms.confidence,
        alpha=terms.alpha,
        correction=comparison.method,
        family=comparison.family,
        family_equivalence=comparison.family_equivalence,
        claim=terms.claim,
        **more,
    )
