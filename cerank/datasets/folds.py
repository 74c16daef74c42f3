"""Folds of a dataset's queries for cross-validation: made here, or read from a file as they were published.

`COLL[fold=2/5]` are the queries of the second of five folds, `COLL[fold!=2,3/5]` those of all but the second and third;
`5 by seed 7` in place of the 5 deals the queries otherwise, and a path there names a file of folds. A query is in one
fold, and queries of nearly one text are in the same.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from cerank.datasets.dataset import Dataset
from cerank.datasets.query_text import NEAR, normalized
from cerank.errors import FormatError, MissingError, UsageError, os_error
from cerank.files.line_reader import local_path
from cerank.recipes.paths import COUNTED_FOLDS
from cerank.text.safe_text import counted, shown

FOLD = re.compile(r"\[fold(?P<sign>!?=)(?P<numbers>[0-9]{1,4}(?:,[0-9]{1,4})*)/(?P<of>[^\[\]]+)\]")
# Of the ids in a file of folds, the share that may be no judged queries: Robust04's folds hold topic 672 of 250, for
# which nothing relevant was found, so that its qrels leave it out.
MOST_UNKNOWN = 0.01
_HINT = "folds are written [fold=2/5] or [fold!=2,3/5], with a file of folds in place of 5 if you have one"
_MOST_BYTES = 1 << 26  # of a file of folds: a million ids


class FoldPart(NamedTuple):
    """A part that some folds make up."""

    numbers: tuple[int, ...]  # from 1
    is_rest: bool  # all but these
    of: str  # how many there are, "5" or "5 by seed 7", or the file that says which


def parse_fold(part: str) -> FoldPart | None:
    """Return what a part such as "[fold=2/5]" says; None for a part of another kind."""
    match = FOLD.fullmatch(part)
    if match is None:
        return None
    numbers = tuple(int(number) for number in match["numbers"].split(","))
    return FoldPart(numbers, match["sign"] == "!=", match["of"])


def whole_of_fold(name: str) -> str:
    """Return the dataset that a fold is of; any other name as it is.

    >>> whole_of_fold("./coll[fold=2/5]")
    './coll'
    """
    match = FOLD.search(name)
    return name[: match.start()] if match and match.end() == len(name) else name


class FoldNames(NamedTuple):
    """The parts of a dataset in one round of cross-validation, by name."""

    train: str
    validation: str  # "" where other queries choose checkpoints
    test: str


def fold_names(dataset: str, number: int, count: int, of: str, *, validates: bool = True) -> FoldNames:
    """Return the parts of one round: tested on a fold, validated on the next, trained on all others.

    Args:
        dataset: the whole dataset.
        number: of the fold that is tested, from 1.
        count: number of folds.
        of: as in `FoldPart`.
        validates: whether the next fold chooses checkpoints; else it is trained on, too.
    """
    test = f"{dataset}[fold={number}/{of}]"
    if not validates:
        return FoldNames(f"{dataset}[fold!={number}/{of}]", "", test)
    after = number % count + 1
    return FoldNames(f"{dataset}[fold!={number},{after}/{of}]", f"{dataset}[fold={after}/{of}]", test)


def count_of(of: str, *, validates: bool = True) -> int:
    """Return how many folds there are.

    Args:
        of: as in `FoldPart`.
        validates: whether a fold chooses checkpoints, so that three are needed.

    Raises:
        UsageError: fewer than are needed to test on one and train on another.
        CerankError: a file of folds that cannot be read.
    """
    match = COUNTED_FOLDS.fullmatch(of)
    count = int(match["count"]) if match else len(read_folds(of))
    if validates and count < 3:
        what = f"{counted(count, 'fold')}: one is tested, the next chooses checkpoints, and the others are trained on"
        hint = "give 3 or more, of which 5 is usual, or name another dataset in data.validation"
        raise UsageError(what, where="folds", hint=hint, code="folds-too-few")
    if count < 2:
        what = f"{counted(count, 'fold')}: one is tested, and the others are trained on"
        raise UsageError(what, where="folds", hint="give 2 or more; 5 is usual", code="folds-too-few")
    return count


def size_of(part: FoldPart, queries: int) -> int:
    """Return about how many of a dataset's queries a part holds."""
    count = count_of(part.of, validates=False)
    taken = count - len(part.numbers) if part.is_rest else len(part.numbers)
    return math.ceil(queries * taken / count)


def part_of_folds(dataset: Dataset, part: str) -> Dataset:
    """Return the part of a dataset that folds make up: fewer queries, all documents and runs.

    Raises:
        UsageError: no such part; more folds than queries; a file that does not place each query in one fold.
    """
    where = f"{dataset.name}{part}"
    fold_part = parse_fold(part)
    if fold_part is None:
        raise UsageError(f"'{shown(part, 60)}' names no folds", where=where, hint=_HINT, code="fold-not-found")
    count = count_of(fold_part.of, validates=False)
    beyond = [number for number in fold_part.numbers if not 1 <= number <= count]
    if beyond:
        what = f"there is no fold {beyond[0]} of {count}"
        raise UsageError(what, where=where, hint=_HINT, code="fold-not-found")
    notes: tuple[str, ...] = ()
    counted_folds = COUNTED_FOLDS.fullmatch(fold_part.of)
    if counted_folds:
        seed = int(counted_folds["seed"]) if counted_folds["seed"] else None
        fold_of = assign_folds(dataset.queries, dataset.qrels, count, where, seed)
    else:
        published = read_folds(fold_part.of)
        fold_of = _published(dataset.queries, published, where)
        unjudged = [query for fold in published for query in fold if query not in dataset.queries]
        if unjudged:
            some = ", ".join(shown(query, 40) for query in unjudged[:3])
            notes = (f"{counted(len(unjudged), 'query')} of the file of folds not judged here: {some}",)
    picked = {query for query, fold in fold_of.items() if (fold in fold_part.numbers) != fold_part.is_rest}
    if not picked:
        raise UsageError("these folds hold no query", where=where, hint=_HINT, code="query-range-empty")
    ids = hashlib.sha256(json.dumps(sorted(picked)).encode()).hexdigest()[:16]
    return replace(
        dataset,
        name=where,
        part=f"{part.partition('/')[0]} of {ids}",  # by the queries, wherever a file of folds is
        queries={query: text for query, text in dataset.queries.items() if query in picked},
        qrels={query: row for query, row in dataset.qrels.items() if query in picked},
        notes=(*dataset.notes, *notes, *_split_notes(dataset, fold_of)),
    )


def assign_folds(
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    count: int,
    where: str,
    seed: int | None = None,
) -> dict[str, int]:
    """Return query -> fold, from 1: of equal sizes, with few and many relevant documents in each alike.

    Queries of nearly one text are dealt together. Nothing but ids, texts, qrels and the seed, where one is declared,
    decides, so that folds are the same on every machine.

    Raises:
        UsageError: there are more folds than queries.
    """
    together = near_duplicates(queries)
    if count > len(together):
        what = f"{count} folds of {counted(len(queries), 'query')}"
        what += f", of which {len(together)} differ" if len(together) < len(queries) else ""
        raise UsageError(what, where=where, hint="take fewer folds", code="folds-too-many")

    def relevant(group: Sequence[str]) -> float:
        return sum(sum(grade > 0 for grade in qrels.get(query, {}).values()) for query in group) / len(group)

    salt = "" if seed is None else f"{seed} "
    ordered = sorted(together, key=lambda group: (relevant(group), hashlib.sha256((salt + group[0]).encode()).digest()))
    sizes, fold_of = dict.fromkeys(range(1, count + 1), 0), dict[str, int]()
    for start in range(0, len(ordered), count):  # as many groups as folds, of about as many relevant documents
        free = set(sizes)
        for group in sorted(ordered[start : start + count], key=len, reverse=True):
            fold = min(free, key=lambda number: (sizes[number], (number + start // count) % count))
            free.discard(fold)
            sizes[fold] += len(group)
            fold_of |= dict.fromkeys(group, fold)
    return fold_of


def near_duplicates(queries: Mapping[str, str]) -> list[list[str]]:
    """Return the queries in groups of nearly one text; most hold one. Texts that hold no word are all different."""
    words = {query: set(normalized(text).split()) for query, text in queries.items()}
    frequency = Counter(word for each in words.values() for word in each)
    leader = {query: query for query in queries}

    def find(query: str) -> str:
        while leader[query] != query:
            leader[query] = leader[leader[query]]
            query = leader[query]
        return query

    # two sets that overlap so much share one of their rarest words, and only those that do are compared
    holders: dict[str, list[str]] = defaultdict(list)
    for query, own in words.items():
        rare = sorted(own, key=lambda word: (frequency[word], word))[: len(own) - math.ceil(NEAR * len(own)) + 1]
        for other in {other for word in rare for other in holders[word]}:
            theirs = words[other]
            if len(own & theirs) >= NEAR * len(own | theirs):
                leader[find(query)] = find(other)
        for word in rare:
            holders[word].append(query)
    groups: dict[str, list[str]] = defaultdict(list)
    for query in queries:
        groups[find(query)].append(query)
    return list(groups.values())


def read_folds(path: str) -> list[list[str]]:
    """Return the query ids of each fold in a JSON file.

    Three forms are read: a list of lists of ids (Anserini's); a table of such lists by name; and Capreolus' table of
    splits, each with `predict` and in it the ids under `test`.

    Raises:
        FormatError: another form, or an id in two folds.
        CerankError: a file that cannot be read.
    """
    file = local_path(path)
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise FormatError("too large for a file of folds", where=path, code="file-too-large")
        content = json.loads(file.read_text(encoding="utf8"))
    except FileNotFoundError as error:
        if not path[:1].isdigit():
            raise os_error(error, file) from error
        what = f"'{shown(path, 60)}' is no number of folds, and no file is called so"
        raise MissingError(what, where="folds", hint="such as 5, or '5 by seed 7'", code="folds-number") from error
    except OSError as error:
        raise os_error(error, file) from error
    except (ValueError, RecursionError) as error:
        raise FormatError("not a JSON file of folds", where=path, hint=_HINT, code="folds-format") from error
    parts = [content[name] for name in sorted(content)] if isinstance(content, dict) else content
    if isinstance(parts, list) and parts and all(isinstance(part, dict) for part in parts):
        predicted = [part.get("predict") for part in parts]
        parts = [part.get("test") if isinstance(part, dict) else None for part in predicted]
    if not isinstance(parts, list) or not parts or not all(isinstance(part, list) and part for part in parts):
        hint = "a list of lists of query ids, such lists by name, or Capreolus' splits with predict.test"
        raise FormatError("not a file of folds", where=path, hint=hint, code="folds-format")
    folds = [[str(query) for query in part] for part in parts]
    twice = [query for query, times in Counter(query for fold in folds for query in fold).items() if times > 1]
    if twice:
        raise FormatError(f"query '{shown(twice[0], 60)}' is in two folds", where=path, code="folds-format")
    return folds


def _published(queries: Mapping[str, str], folds: Sequence[Sequence[str]], where: str) -> dict[str, int]:
    fold_of = {query: number for number, fold in enumerate(folds, 1) for query in fold}
    missing = [query for query in queries if query not in fold_of]
    if missing:
        what = f"{len(missing)} of {counted(len(queries), 'query')} are in no fold, such as '{shown(missing[0], 60)}'"
        raise UsageError(what, where=where, hint="is the file for this dataset?", code="folds-incomplete")
    unknown = [query for query in fold_of if query not in queries]
    if len(unknown) > MOST_UNKNOWN * len(fold_of):
        what = f"{len(unknown)} of the {counted(len(fold_of), 'query')} in the file of folds are no judged queries here"
        hint = f"such as '{shown(unknown[0], 60)}'; is the file for this dataset?"
        raise UsageError(what, where=where, hint=hint, code="folds-unknown")
    return {query: fold_of[query] for query in queries}


def _split_notes(dataset: Dataset, fold_of: Mapping[str, int]) -> tuple[str, ...]:
    split = [group for group in near_duplicates(dataset.queries) if len({fold_of[query] for query in group}) > 1]
    if not split:
        return ()
    example = ", ".join(shown(query, 40) for query in split[0][:3])
    return (f"{counted(len(split), 'group')} of nearly equal queries are in several folds of the file: {example}",)
