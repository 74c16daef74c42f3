"""A published table from its TOML file, judged again, as a table; and how near a repeated experiment comes.

Invariant: a number that was computed from run files is never mixed up with one that was printed.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.errors import MissingError, UsageError, os_error
from cerank.evaluation.answers import short, shown
from cerank.files import json_records
from cerank.text.safe_text import counted
from cerank.text.table_data import Column, Table

if TYPE_CHECKING:
    from cerank.app.comparison.recorded_looks import Keys
    from cerank.core.rankings import Ranking
    from cerank.evaluation.rejudge import ClaimsTable, PublishedClaim, RejudgedClaim

_ROUNDING = 0.0006  # a printed mean difference has at least three decimals


def read_claims(path: Path) -> tuple[ClaimsTable, Path]:
    """Return the claims in a TOML file, or those shipped under that name, and the folder that their files are in.

    Raises:
        UsageError: it cannot be read, or is no table of claims.
    """
    from cerank.evaluation import published
    from cerank.evaluation.rejudge import ClaimsTable

    example = None if path.exists() else published.claims(str(path))
    try:
        data = example if example is not None else path.expanduser().read_bytes()
        return json_records.convert(msgspec.toml.decode(data), ClaimsTable), path.expanduser().absolute().parent
    except FileNotFoundError as error:
        hint = f"shipped examples: {', '.join(published.CLAIMS)}"
        raise MissingError("no such file", where=str(path), hint=hint) from error
    except OSError as error:
        raise os_error(error, path) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = "see `cerank guide verdicts` for an example"
        raise UsageError(f"the file is not a table of claims: {error}", where=str(path), hint=hint) from error


def with_runs(claims: ClaimsTable, folder: Path) -> tuple[ClaimsTable, tuple[str, ...]]:
    """Return the claims with the numbers of those that name run files, and notes on these.

    The notes say what is odd in a run file, and where its numbers are not the printed ones.

    Raises:
        UsageError: one run file without the other, or without qrels; or one that shares no query or no document with
            them. MissingError: a file is not there.
    """
    from cerank.evaluation.significance import paired

    out, notes = [], []
    for claim in claims.claims:
        if not (claim.left_run or claim.right_run):
            out.append(claim)
            continue
        if not (claim.left_run and claim.right_run):
            raise UsageError("one run file is named without the other", where=claim.what, hint="left_run and right_run")
        if claim.sd is not None:
            raise UsageError("run files have an sd of their own", where=claim.what, hint="remove sd")
        measured = [_values(claims, folder, name) for name in (claim.left_run, claim.right_run)]
        values = [each.values for each in measured]
        notes += [note for each in measured for note in each.notes]
        figures = paired([values[0][query] for query in values[0]], [values[1][query] for query in values[0]])
        if figures.t is None or figures.sd == 0:
            raise UsageError("its run files differ by the same on every query: there is no spread", where=claim.what)
        notes += _differing(claim, figures.difference, figures.p, figures.n)
        computed = {"queries": figures.n, "difference": figures.difference, "p": figures.p, "left": None, "right": None}
        out.append(msgspec.structs.replace(claim, **computed))
    return msgspec.structs.replace(claims, claims=tuple(out)), tuple(dict.fromkeys(notes))


def looks(claims: ClaimsTable, folder: Path) -> Keys:
    """Return the claims as `recorded_looks` counts them; none where the table does not name its qrels.

    Two run files are known by their rankings, as in a comparison of them; a claim of numbers by these, whatever their
    measure is called. For numbers alone the qrels need not be here, and then nobody can count them.
    """
    from cerank.app.comparison import recorded_looks
    from cerank.app.comparison.measuring.named_judgments import identity
    from cerank.evaluation.measures import check
    from cerank.evaluation.systems import fingerprint
    from cerank.runs.test_set_looks import short_key
    from cerank.trec.text_io import read_qrels

    has_runs = any(claim.left_run and claim.right_run for claim in claims.claims)
    path = folder / claims.qrels
    if not claims.qrels or not (has_runs or path.is_file()):
        return {}
    qrels = read_qrels(path)
    measure = check((claims.measure,), qrels, "measure")[0] if has_runs else claims.measure
    keys = []
    for claim in claims.claims:
        if claim.left_run and claim.right_run:
            hashes = [fingerprint(_values(claims, folder, name).ranking) for name in (claim.left_run, claim.right_run)]
            keys.append(recorded_looks.key_of_rankings(hashes[0], hashes[1], measure))
        else:
            numbers = [claim.queries, claim.difference, claim.left, claim.right, claim.p, claim.sd]
            keys.append(recorded_looks.key_of_statistic(["published", claim.what, measure, *numbers]))
    return {short_key(identity(qrels)): tuple(dict.fromkeys(keys))}


def _differing(claim: PublishedClaim, difference: float, p: float, queries: int) -> list[str]:
    """Return where the printed numbers of a claim are not those of its run files."""
    printed = claim.difference
    if printed is None and claim.left is not None and claim.right is not None:
        printed = claim.right - claim.left
    parts = []
    if printed is not None and abs(printed - difference) > _ROUNDING:
        parts.append(f"a difference of {printed:+.4f} is printed, the run files have {difference:+.4f}")
    if claim.p is not None and not 0.8 * claim.p - 0.001 <= p <= 1.2 * claim.p + 0.001:
        parts.append(f"p {claim.p:.3g} is printed, a paired t-test of the run files has {p:.3g}")
    if claim.queries is not None and claim.queries != queries:
        parts.append(f"{counted(claim.queries, 'query')} are printed, the qrels have {queries}")
    return [f"{claim.what}: {part}" for part in parts]


class _MeasuredFile(msgspec.Struct, frozen=True):
    """A run file that a claim names."""

    ranking: Ranking
    values: dict[str, float]  # by judged query
    notes: tuple[str, ...]  # what was odd in it


def _values(claims: ClaimsTable, folder: Path, name: str) -> _MeasuredFile:
    """Return a run file with its values.

    Raises:
        UsageError: no qrels are named, or it shares no query or no document with them; MissingError: it is not there.
    """
    from cerank.app.comparison.measuring.file_systems import coverage
    from cerank.evaluation.measures import check, per_query
    from cerank.trec.text_io import read_qrels, read_run

    if not claims.qrels:
        raise UsageError("run files are named without qrels", where="qrels", hint='qrels = "FILE"')
    path = folder / name
    if not path.is_file():
        raise MissingError("no such run file", where=str(path))
    qrels = read_qrels(folder / claims.qrels)
    run = read_run(path)
    (measure,) = check((claims.measure,), qrels, "measure")
    odd = (*run.notes, *coverage(path, run.ranking, qrels, claims.qrels))
    values = per_query([measure], qrels, run.ranking)[measure]
    return _MeasuredFile(run.ranking, values, tuple(f"{name}: {note}" for note in odd))


def reproduction_table(claims: ClaimsTable, folder: Path) -> Table | None:
    """Return how near the repeated experiment of a table comes to the original; None where it names none.

    Raises:
        MissingError: repro_eval is not installed, or a run file is not there.
    """
    from cerank.evaluation.studies.reproduction import reproduction

    pairs = claims.reproduction
    if pairs is None:
        return None
    first, second = ([_values(claims, folder, name) for name in names] for names in (pairs.original, pairs.reproduced))
    effect = reproduction(
        claims.measure,
        (first[0].ranking, first[1].ranking),
        (second[0].ranking, second[1].ranking),
        ((first[0].values, first[1].values), (second[0].values, second[1].values)),
    )
    columns = (
        Column("system", "system"),
        Column("original", "original", "number"),
        Column("reproduced", "reproduced", "number"),
        Column("kendall", "Kendall's tau", "number"),
        Column("overlap", "rank-biased overlap", "number"),
        Column("rmse", "RMSE", "number"),
    )
    means = [[statistics.fmean(each.values.values()) for each in pair] for pair in (first, second)]
    rows = tuple(
        (of.system, means[0][place], means[1][place], of.kendall, of.overlap, of.rmse)
        for place, of in enumerate(effect.systems)
    )
    notes = (
        f"effect ratio {effect.effect_ratio:.3f}: the reproduced mean gain by {claims.measure} over the original one",
        f"delta relative improvement {effect.relative_change:+.3f}: the original relative gain less the reproduced one",
        "by repro_eval (Breuer et al., SIGIR 2020): tau over the union of both rankings, overlap with p = .95, RMSE of "
        "the values by query",
        *dict.fromkeys(note for each in (*first, *second) for note in each.notes),
    )
    return Table("reproduction", columns, rows, "Reproduction", notes)


def table(claims: ClaimsTable, rejudged: tuple[RejudgedClaim, ...], more_notes: tuple[str, ...] = ()) -> Table:
    """Return each claim beside what its numbers bear, with notes on its run files, too."""
    from cerank.evaluation.comparison_rows import notes_beyond
    from cerank.evaluation.rejudge import said_of

    columns = (
        Column("what", "comparison"),
        Column("queries", "queries", "number", 0, priority=3),
        Column("difference", "difference", "signed"),
        Column("low", "low", "signed"),
        Column("high", "high", "signed"),
        Column("source", "spread from", priority=4),
        Column("p", "p", "p", priority=2),
        Column("p_corrected", "adjusted p", "p", priority=1),
        Column("says", "published"),
        Column("verdict", "the data bear"),
        Column("stands", "stands"),
        Column("detectable", "would show", "number", priority=4),
        Column("queries_for_margin", "queries for the margin", "number", 0, priority=4),
    )
    rows = tuple(
        (
            *(each.claim.what, each.claim.queries, each.difference, each.judgment.low, each.judgment.high),
            *(_source(each.claim), each.judgment.p, each.judgment.p_corrected, each.claim.says),
            *(shown(each.judgment, each.difference), "yes" if each.stands else "no"),
            *(each.judgment.detectable, each.judgment.queries_for_margin),
        )
        for each in rejudged
    )
    notes = [
        f"{said_of(rejudged)}; p adjusted over {counted(len(rejudged), 'comparison')} (Holm); low, high: "
        f"simultaneous {100 * (1 - claims.alpha):.4g} % intervals",
        "would show: the true difference that these queries reveal in 4 of 5 cases",
    ]
    if claims.margin is None:
        notes.append("no margin is given, so nothing can be shown to be on par")
    else:
        notes.append(f"on par: within ±{short(claims.margin)}, a margin chosen after the results (†)")
        notes.append("on par assumes that more than a few queries differ; how many do is not printed there")
    assumed = sorted({claim.sd for claim in claims.claims if claim.sd is not None})
    if assumed:
        sizes = ", ".join(short(sd) for sd in assumed)
        notes.append(
            f"no p is printed: an sd of per-query differences of {sizes} is assumed, and verdicts rest on that"
        )
    beyond = notes_beyond((each.claim.what, each.judgment) for each in rejudged)
    return Table("rejudged", columns, rows, claims.title, (*notes, *beyond, *more_notes))


def _source(claim: PublishedClaim) -> str:
    """Return where the spread of a claim's differences comes from."""
    if claim.left_run:
        return "run files"
    return "printed p" if claim.sd is None else f"assumed sd {short(claim.sd)}"
