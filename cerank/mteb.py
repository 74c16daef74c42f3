"""Re-rank in mteb, with a model of cerank as a cross-encoder of its interface.

`mteb.evaluate(cerank.mteb.MtebReranker("brisk-otter"), task.convert_to_reranking(folder, top_k=100))`
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cerank import api
from cerank.errors import UsageError

try:
    from mteb.models import ModelMeta
except ImportError as missing:
    raise UsageError("mteb is not installed", hint="pip install 'cerank[mteb]'", code="library-missing") from missing

__all__ = ["MtebReranker"]


class MtebReranker:
    """A cross-encoder as mteb's interface has it.

    Scores are those of `cerank.load`, so of a run what it was measured by.

    Args:
        model: a run's short name, RUN:STAGE, a folder with a finished re-ranker, a hub id, a declaration file, or what
            `cerank.load` returned.
        name: organization/name under which mteb files results. Default: "cerank/" and the model's name.
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
        name: str = "",
        device: str | None = None,
        precision: Literal["fp32", "bf16", "auto"] = "fp32",
        lab: str | Path | None = None,
    ) -> None:
        if not isinstance(model, api.LoadedReranker):
            model = api.load(model, device=device, precision=precision, lab=lab)
        self.model: api.LoadedReranker = model
        own = "".join(sign if sign.isalnum() or sign in "._-" else "-" for sign in model.name).strip("-")
        title = name or f"cerank/{own or 'model'}"
        if title.count("/") != 1 or not all(title.split("/")):
            raise UsageError(f"'{title}' is no name of a model", where="name", hint="such as my-lab/brisk-otter")
        self.mteb_model_meta: Any = ModelMeta.create_empty(overwrites={"name": title, "revision": "cerank"})

    def predict(self, inputs1: Iterable[Mapping[str, Any]], inputs2: Iterable[Mapping[str, Any]], **_more: Any) -> Any:
        """Return the scores (pairs,) of queries with documents, which mteb gives in batches of texts.

        Args:
            inputs1: batches with the queries under "text".
            inputs2: batches with the documents under "text", as many.
            _more: task, split and options of encoding, which change nothing here.

        Raises:
            UsageError: a batch holds no texts, but images or sounds.
        """
        import numpy as np

        pairs = list(zip(_texts(inputs1), _texts(inputs2), strict=True))
        return np.asarray(self.model.score_pairs(pairs), dtype=np.float64)


def _texts(batches: Iterable[Mapping[str, Any]]) -> Sequence[str]:
    texts: list[str] = []
    for batch in batches:
        if "text" not in batch:
            raise UsageError("the task has no texts", where="cerank.mteb.MtebReranker", code="text-missing")
        texts += batch["text"]
    return texts
