"""What an 8-bit model gains and loses: its speed beside float32 on this processor, and its ranking as a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.app.comparison import comparisons, named_systems
from cerank.app.comparison.measuring import named_judgments
from cerank.app.comparison.named_systems import RunTarget
from cerank.app.run_texts import condition_of, some_texts
from cerank.errors import CerankError, MissingError
from cerank.exporting.export_formats import QUANTIZED, ExportFormat
from cerank.settings import Settings
from cerank.text.safe_text import counted

if TYPE_CHECKING:
    from cerank.evaluation.compare import Comparison
    from cerank.exporting.score_elsewhere import SpeedComparison

FASTER = 1.1  # times float32; less is not worth other scores
CALIBRATION_QUERIES = 150  # two pairs each; sentence-transformers calibrates with 100 to 300 texts
_TIMED_PAIRS = 96


class QuantizedResult(msgspec.Struct, frozen=True, kw_only=True):
    """An 8-bit model beside the run's own ranking."""

    speed: SpeedComparison
    processor: str
    library: str  # that ran both
    comparison: Comparison
    plain: str  # the format that keeps float32
    queries: int
    changed: int  # queries whose ranking has another order

    @property
    def verdicts(self) -> dict[str, str]:
        """Return measure -> verdict of the 8-bit model against the run."""
        return {row.measure: row.verdict for row in self.comparison.rows}

    @property
    def is_recommended(self) -> bool:
        """Return whether it is faster here, and shown to be no worse by more than the margin."""
        fine = {"equivalent", "different but negligible", "better"}
        return self.speed.ratio >= FASTER and all(verdict in fine for verdict in self.verdicts.values())

    @property
    def sentences(self) -> tuple[str, ...]:
        """Return speed, verdicts and the recommendation in words."""
        from cerank.evaluation.answers import beyond_interval

        speed = self.speed
        lines = [
            f"on this processor ({self.processor}) 8 bits re-rank {speed.exported:.0f} pairs/s and float32 "
            f"{speed.reference:.0f}, both by {self.library}: {speed.ratio:.2f} times as fast",
            f"{self.changed} of {counted(self.queries, 'query')} are ranked in another order",
        ]
        for row in self.comparison.rows:
            judgment = row.judgment
            lines.append(
                f"{row.measure}: {row.verdict}; difference {row.paired.difference:+.4f} "
                f"[{judgment.low:+.4f}, {judgment.high:+.4f}]"
                + (f"; {text}" if (text := beyond_interval(judgment)) else "")
                + ("" if judgment.margin else "; without a margin in the recipe, nothing can be called equivalent")
            )
        if self.is_recommended:
            lines.append("recommended on processors like this one")
        elif speed.ratio < FASTER:
            lines.append(f"not recommended here: it is not faster than float32; --as {self.plain} keeps the scores")
        else:
            lines.append(f"not recommended: it is not shown to rank as well; --as {self.plain} keeps the scores")
        return tuple(lines)


def calibration_pairs(settings: Settings, run: RunTarget) -> list[tuple[str, str]]:
    """Return pairs of the run's validation queries by which the ranges of 8 bits are set: relevant and other documents.

    They are none of the test queries, on which the result is judged.

    Raises:
        MissingError: the validation dataset is not on this machine.
    """
    from cerank.planning.inputs import open_as_base_reads

    recipe = run.plan.recipe
    validation = recipe.stages[run.system].validation or recipe.data.validation
    dataset = open_as_base_reads(validation, recipe, settings.cache)
    judged = [query for query in dataset.queries if dataset.qrels.get(query)]
    count = min(len(judged), CALIBRATION_QUERIES)
    chosen = [judged[place * len(judged) // count] for place in range(count)]
    relevant = {
        query: max(dataset.qrels[query], key=lambda document: dataset.qrels[query][document]) for query in chosen
    }
    others = [*chosen[1:], *chosen[:1]]
    document_ids = list(dict.fromkeys(relevant.values()))
    texts = dict(zip(document_ids, dataset.documents.texts(document_ids), strict=True))
    pairs = [(dataset.queries[query], texts[relevant[query]]) for query in chosen]
    return pairs + [
        (dataset.queries[query], texts[relevant[other]]) for query, other in zip(chosen, others, strict=True)
    ]


def judge_quantized(
    settings: Settings,
    run: RunTarget,
    folder: Path,
    plain: Path,
    *,
    form: ExportFormat,
    queries: int,
    prompt: str,
) -> QuantizedResult:
    """Return what an 8-bit model does to the run's ranking, and how fast it is here.

    Args:
        settings: where caches are.
        run: the run and stage that the model comes from.
        folder: the exported 8-bit model.
        plain: the same in float32.
        form: format of the 8-bit model.
        queries: number of test queries to re-rank; their candidates are the run's.
        prompt: text that is written before each query.

    Raises:
        MissingError: the run's ranking or test dataset is gone.
    """
    from cerank.core.rankings import ordered
    from cerank.evaluation.compare import compare
    from cerank.evaluation.measures import check
    from cerank.evaluation.systems import Condition, System, measured
    from cerank.evaluation.verdicts.terms import Terms
    from cerank.exporting.score_elsewhere import graph_scorer, measure_speed
    from cerank.machine.devices import cpu_model
    from cerank.trec.text_io import read_qrels, read_run

    condition = condition_of(run.plan)
    path = run.folder.ranking(run.system, condition.dataset, condition.first_stage)
    if not path.is_file():
        raise MissingError("this stage has not re-ranked the test queries yet", where=run.label)
    texts = some_texts(settings, run.folder, run.plan, queries)
    score, reference = graph_scorer(folder, form, prompt), graph_scorer(plain, QUANTIZED[form], prompt)
    pairs = [pair for query in texts for pair in query.pairs]
    speed = measure_speed(reference, score, pairs[:_TIMED_PAIRS])
    values = iter(score(pairs))
    scores = {query.query_id: {doc: next(values) for doc in query.document_ids} for query in texts}
    ranking = ordered(scores, read_run(run.folder.candidates(condition.dataset, condition.first_stage)).ranking)
    own = read_run(path).ranking.only(list(scores))
    judged = {query: row for query, row in read_qrels(run.folder.qrels(condition.dataset)).items() if query in scores}
    names = check(run.plan.measures_on(condition.dataset), judged, "evaluate.measures")
    where = Condition(named_systems.short_name(condition.dataset), named_systems.short_name(condition.first_stage))
    sha256 = named_judgments.identity(judged)
    systems = [
        System(label=label, measured=(measured(names, where, judged, sha256, each),), is_fixed=True)
        for label, each in ((run.system, own), ("8 bits", ranking))
    ]
    try:
        margins = comparisons.of_run(run.folder).terms.margins
    except CerankError:  # a run whose other stages were never measured has no table, and no margins in it
        margins = {}
    return QuantizedResult(
        speed=speed,
        processor=cpu_model() or "unknown",
        library="openvino" if form.startswith("openvino") else "onnxruntime",
        plain=QUANTIZED[form],
        comparison=compare(systems, names, terms=Terms(margins=margins)),
        queries=len(texts),
        changed=sum(ranking[query] != own[query] for query in scores),
    )
