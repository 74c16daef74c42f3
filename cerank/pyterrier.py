"""Re-rank in PyTerrier pipelines: `bm25 >> pt.text.get_text(index) >> cerank.pyterrier.Reranker("brisk-otter")`.

Java is not needed for it. `pt.Experiment(..., perquery=True)` gives a table that `cerank.compare` takes as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from cerank import api
from cerank.errors import UsageError

try:
    import pyterrier as pt
except ImportError as missing:
    raise UsageError(
        "pyterrier is not installed", hint="pip install 'cerank[pyterrier]'", code="library-missing"
    ) from missing

__all__ = ["Reranker"]


class Reranker(pt.Transformer):
    """A transformer that scores documents again: from qid, query, docno and text to the same with score and rank.

    Scores are those of `cerank.load`, so of a run what it was measured by. Documents with equal scores keep the order
    they came in, as everywhere in cerank.

    Args:
        model: a run's short name, RUN:STAGE, a folder with a finished re-ranker, a hub id, a declaration file, or what
            `cerank.load` returned.
        text_field: the column with the documents' texts.
        device: as for `cerank.load`.
        precision: as for `cerank.load`.
        lab: as for `cerank.load`.

    Raises:
        CerankError: there is no such model, or it is no finished re-ranker.
    """

    def __init__(
        self,
        model: str | Path | api.LoadedReranker,
        *,
        text_field: str = "text",
        device: str | None = None,
        precision: Literal["fp32", "bf16", "auto"] = "fp32",
        lab: str | Path | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, api.LoadedReranker):
            model = api.load(model, device=device, precision=precision, lab=lab)
        self.model: api.LoadedReranker = model
        self.text_field = text_field

    def __repr__(self) -> str:
        return f"cerank.pyterrier.Reranker({self.model.name!r})"

    def transform(self, results: Any) -> Any:
        """Return the results with new scores and ranks.

        Args:
            results: a DataFrame with qid, query, docno and the texts.

        Raises:
            UsageError: a column is missing, or a text is none.
        """
        missing = [name for name in ("qid", "query", "docno", self.text_field) if name not in results.columns]
        if missing:
            hint = "pt.text.get_text(...) before it adds the texts" if missing == [self.text_field] else ""
            what = f"the results have no column {' and none '.join(missing)}"
            raise UsageError(what, where="cerank.pyterrier.Reranker", hint=hint, code="column-missing")
        queries, texts = results["query"].tolist(), results[self.text_field].tolist()
        for docno, query, text in zip(results["docno"], queries, texts, strict=True):
            if not isinstance(query, str) or not isinstance(text, str):
                what = f"document {docno}: query and text must be texts, not {query!r:.40} and {text!r:.40}"
                raise UsageError(what, where="cerank.pyterrier.Reranker", code="text-missing")
        out = results.drop(columns=["score", "rank"], errors="ignore").copy()
        scores = self.model.score_pairs(list(zip(queries, texts, strict=True)))
        out["score"] = [float(score) for score in scores]
        return pt.model.add_ranks(out)
