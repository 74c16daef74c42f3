"""Figures that papers published, as facts to compare your own with; TOML files in this folder, each with its source.

Invariant: nothing here is computed and nothing is matched by likeness: a figure is given for a test set, first stage,
measure and model that were named exactly, or not at all.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib import resources
from typing import Literal

import msgspec

from cerank.files import json_records

PAPERS = ("ecir2025", "rank-distillm")
CLAIMS = ("dl20", "ecir2025")  # tables of comparisons, for `cerank rejudge`

# A test set by whatever name: an ir_datasets id, a short name, a folder.
_TESTS = {
    "dl19": r"dl-?(20)?19",
    "dl20": r"dl-?(20)?20",
    "dlhard": r"dl-?hard",
    "devsmall": r"dev[/-]?small",
}
_FIRST_STAGES = {
    "bm25": r"bm25",
    "colbertv2": r"(webis-)?colbert(-?v2)?",  # Webis' public run is ColBERTv2's
    "contriever": r"contriever(-msmarco)?",
}
_BASES = {
    "electra": r"electra(-base(-discriminator)?)?",
    "electra-large": r"electra-large(-discriminator)?",
    "roberta": r"roberta(-base)?",
}
_HEADINGS = {"dl19": "DL19", "dl20": "DL20", "dlhard": "DL-HARD", "devsmall": "dev/small"}


class PublishedRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a published table."""

    label: str  # the paper's word
    values: tuple[float, ...]  # one a column
    role: Literal["model", "first stage", "other"] = "model"  # other: shown, beside nothing of cerank's
    base: str = ""
    chain: tuple[str, ...] = ()  # what each stage learns from: "cl" labels, "kd" a teacher
    loss: str = ""  # of the last stage; "" for any
    teacher: str = ""  # of the last stage, as recipes name it; "" for any
    run: str = ""  # folder of its rankings among the released ones; "" where none is known
    different: tuple[int, ...] = ()  # places in `values` that the paper marks as significantly different


class PublishedTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One published table: a measure, and its columns as "FIRST-STAGE TEST"."""

    measure: str  # without relevance threshold
    columns: tuple[str, ...]
    rows: tuple[PublishedRow, ...]
    graded: int = 1  # the smallest relevant grade on test sets with grades beyond 1


class Paper(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The figures of one paper, and where they were read."""

    key: str
    title: str
    authors: str
    venue: str
    arxiv: str
    source: str
    depth: int
    recipes: tuple[str, ...]  # beginnings of the names of recipes that its models are shown beside
    notes: tuple[str, ...]
    tables: tuple[PublishedTable, ...]
    first_stage_depth: int = 0  # of its first stages' own rankings; 0: `depth`
    is_default: bool = False  # also shown beside recipes that no paper names
    released: str = ""  # name of the published file with its rankings; "" where there is none
    baseline: str = ""  # label of the row that its marks of significance compare the others with

    @property
    def cited(self) -> str:
        """Return authors, venue and number, for a caption."""
        return f"{self.authors}, {self.venue}, arXiv {self.arxiv}"


class PublishedQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The user's own result that a published figure is compared with."""

    test: str  # dataset name, id or folder
    first_stage: str
    measure: str  # canonical, such as "RR(rel=2)@10"
    base: str = ""  # as the recipe names it; "" for the first stage itself
    chain: tuple[str, ...] = ()  # "cl" or "kd" a stage
    loss: str = ""  # of the last stage
    teacher: str = ""  # of the last stage, as the recipe names it; "" for labels
    recipe: str = ""  # its name


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A published value, and whose it is."""

    paper: str  # `Paper.key`
    label: str
    value: float
    depth: int  # that it was measured to


@cache
def papers() -> tuple[Paper, ...]:
    """Return every paper of the package."""
    folder = resources.files(__name__)
    texts = ((folder / f"{key}.toml").read_text(encoding="utf8") for key in PAPERS)
    return tuple(json_records.convert(tomllib.loads(text), Paper) for text in texts)


def claims(name: str) -> bytes | None:
    """Return the shipped table of comparisons of that name as TOML; None where there is none."""
    return (resources.files(__name__) / f"{name}-claims.toml").read_bytes() if name in CLAIMS else None


def beside(query: PublishedQuery) -> tuple[Figure, ...]:
    """Return the published figures for the same test set, first stage, measure and model, one a paper at most."""
    column = column_of(query.first_stage, query.test)
    figures = []
    for paper in papers():
        if query.base and not _is_about(paper, query.recipe):
            continue
        for table in paper.tables:
            if column in table.columns and _same_measure(table, query):
                place = table.columns.index(column)
                rows = (row for row in table.rows if _is_row(row, query))
                depth = paper.depth if query.base else paper.first_stage_depth or paper.depth
                figures += [
                    Figure(paper=paper.key, label=row.label, value=row.values[place], depth=depth) for row in rows
                ]
    return tuple(figures)


def paper_of(key: str) -> Paper | None:
    """Return the paper of that key; None where there is none."""
    return next((paper for paper in papers() if paper.key == key), None)


def column_of(first_stage: str, test: str) -> str:
    """Return what the tables' `columns` call a test set re-ranked over a first stage, by whatever names.

    Example:
        >>> column_of("colbert", "msmarco-passage-trec-dl-2019-judged")
        'colbertv2 dl19'
    """
    return f"{_known(first_stage, _FIRST_STAGES)} {_known(test, _TESTS)}"


def heading(test: str) -> str:
    """Return what tables call a test set that papers know, such as DL19; "" for any other."""
    return _HEADINGS.get(_known(test, _TESTS), "")


def plain_measure(name: str) -> str:
    """Return a measure's name without its relevance threshold: RR@10 for RR(rel=2)@10."""
    return re.sub(r"rel=\d+,?", "", name).replace("()", "").replace(",)", ")")


def _known(name: str, patterns: dict[str, str]) -> str:
    """Return the key of the pattern that matches the telling part of a name; "" for none."""
    text = name.lower().removesuffix(".gz").removesuffix(".run").removesuffix("/judged")
    edges = r"(?:^|.*[/_.]|.*trec-|.*msmarco-passage-)(?:{})(?:-(?:judged|top\d+|passage))?$"
    return next((key for key, pattern in patterns.items() if re.fullmatch(edges.format(pattern), text)), "")


def _is_about(paper: Paper, recipe: str) -> bool:
    """Return whether a paper's models are shown beside the recipe's."""
    if recipe.startswith(paper.recipes):
        return True
    return paper.is_default and not any(recipe.startswith(other.recipes) for other in papers())


def _same_measure(table: PublishedTable, query: PublishedQuery) -> bool:
    if plain_measure(query.measure) != table.measure:
        return False
    has_grades = _known(query.test, _TESTS) != "devsmall"
    rel = re.search(r"rel=(\d+)", query.measure)
    return (int(rel[1]) if rel else 1) == (table.graded if has_grades else 1)


def _is_row(row: PublishedRow, query: PublishedQuery) -> bool:
    if not query.base:
        return row.role == "first stage"
    if row.role != "model":
        return False
    is_same = (row.base, row.chain) == (_known(query.base, _BASES), query.chain)
    return is_same and row.loss in {"", query.loss} and row.teacher in {"", query.teacher}
