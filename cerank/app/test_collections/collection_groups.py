"""Test collections that are named together, such as `beir:*` or `dl19+dl20`, and which of them are on this disk.

Invariant: nothing is downloaded to find out, and what is left out is named.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from cerank.datasets import irds
from cerank.datasets.aliases import id_of
from cerank.datasets.open_datasets import open_dataset, whole_and_part
from cerank.errors import CerankError, MissingError, UsageError
from cerank.files.line_reader import local_path
from cerank.files.named_files import near_folders
from cerank.recipes.schema import Recipe
from cerank.recipes.sections.set_mixtures import is_mixture
from cerank.registry import nearest
from cerank.text.safe_text import counted, shown

_PLUS, _OF = "+", ":"
_BETWEEN = re.compile(r"\+(?![^\[\]]*\])")  # a plus that is in no [part] of queries, where a file of folds may have one
_FORUMS = (
    *("android", "english", "gaming", "gis", "mathematica", "physics"),
    *("programmers", "stats", "tex", "unix", "webmasters", "wordpress"),
)
BEIR = {  # name -> id in ir_datasets, of those whose data is public; BEIR's own tables have the forums as one row
    "arguana": "beir/arguana",
    "climate-fever": "beir/climate-fever",
    **{f"cqadupstack-{forum}": f"beir/cqadupstack/{forum}" for forum in _FORUMS},
    "dbpedia-entity": "beir/dbpedia-entity/test",
    "fever": "beir/fever/test",
    "fiqa": "beir/fiqa/test",
    "hotpotqa": "beir/hotpotqa/test",
    "msmarco": "beir/msmarco/dev",
    "nfcorpus": "beir/nfcorpus/test",
    "nq": "beir/nq",
    "quora": "beir/quora/test",
    "scidocs": "beir/scidocs",
    "scifact": "beir/scifact/test",
    "trec-covid": "beir/trec-covid",
    "webis-touche2020": "beir/webis-touche2020/v2",
}
_NOT_NANO = ("cqadupstack", "trec-covid")
NANO_BEIR = {name: f"nano-beir/{name}" for name in BEIR if not name.startswith(_NOT_NANO)}
GROUPS = {"beir": BEIR, "nanobeir": NANO_BEIR}


class CollectionGroup(msgspec.Struct, frozen=True):
    """The test collections of a name that stands for several: those on disk, and those that are not."""

    name: str  # as it was given
    here: tuple[str, ...]  # names of datasets
    left_out: tuple[str, ...]  # what is not on disk, or is no dataset

    def note(self) -> str:
        """Return what the name came to, and what it leaves out."""
        text = f"{shown(self.name, 120)}: {counted(len(self.here), 'collection')} on disk"
        if not self.left_out:
            return text
        return f"{text}; not on disk, so without {', '.join(shown(name, 80) for name in self.left_out)}"


def is_group(name: str) -> bool:
    """Return whether a name stands for several test collections.

    >>> [is_group(name) for name in ("beir:*", "nanobeir", "dl19+dl20", "./sets/*", "dl19", "beir/scifact/test")]
    [True, True, True, True, False, False]
    """
    if is_mixture(name) or "\0" in name or _is_a_path(name):
        return False
    parts = _BETWEEN.split(name)
    return len(parts) > 1 or any(_is_known(part) or "*" in whole_and_part(part)[0] for part in parts)


def _is_a_path(name: str) -> bool:
    """Return whether a name is that of a folder, which may hold a plus, or of a part or other qrels of one."""
    whole = whole_and_part(name)[0]
    return any(local_path(text).exists() for text in (name, whole, whole.partition("#")[0]) if text)


def _is_known(part: str) -> bool:
    return part.partition(_OF)[0] in GROUPS


def with_names(name: str, change: Callable[[str], str]) -> str:
    """Return a name with each of its parts changed, such as a path made absolute."""
    if not is_group(name):
        return change(name)
    return _PLUS.join(part if _is_known(part) else change(part) for part in _BETWEEN.split(name))


def group_of(name: str, cache: Path) -> CollectionGroup:
    """Return the collections that a name stands for.

    Args:
        name: parts joined by `+`: a dataset; `beir:PATTERN` or `nanobeir:PATTERN`, where `beir` alone is `beir:*`; or
            folders by a pattern, such as `./collections/*`.
        cache: its folders `beir/NAME` and `nanobeir/NAME` win over ir_datasets.

    Raises:
        UsageError: a pattern matches nothing.
        MissingError: none of them is on disk.
    """
    here: dict[str, None] = {}
    left_out: dict[str, None] = {}
    for part in _BETWEEN.split(name):
        if not part.strip():
            raise UsageError("a name is missing", where=name, hint="such as dl19+dl20", code="collections-unknown")
        is_pattern = "*" in part and not _is_known(part)
        for member in _members(part.strip(), cache):
            (here if _is_here(member, cache, is_sure=not is_pattern) else left_out)[member] = None
    if not here:
        raise _none_here(name, tuple(left_out), cache)
    return CollectionGroup(name, tuple(here), tuple(left_out))


def _none_here(name: str, left_out: Sequence[str], cache: Path) -> MissingError:
    """Return the error for a name of which no collection is on disk; folders are not for ir_datasets to load."""
    known = [part.strip().partition(_OF)[0] for part in _BETWEEN.split(name) if _is_known(part.strip())]
    paths = [member for member in left_out if not known and member.startswith(("./", "../", "~", "/"))]
    what = f"none of its {counted(len(left_out), 'test collection')} is on disk"
    if len(paths) == len(left_out):
        what = f"none of its {counted(len(paths), 'folder')} is there: {', '.join(shown(path, 80) for path in paths)}"
        hint = "; ".join(filter(None, (near_folders(whole_and_part(path)[0].partition("#")[0]) for path in paths)))
    else:
        places = " or ".join(str(cache / group / "NAME") for group in dict.fromkeys(known))
        hint = "load one with ir_datasets where there is a network" + (f", or unpack it as {places}" if places else "")
    return MissingError(what, where=shown(name, 200), hint=hint, code="collections-missing")


def _members(part: str, cache: Path) -> list[str]:
    """Return the names of the datasets that a part stands for, on disk or not."""
    group, _, pattern = part.partition(_OF)
    if group in GROUPS:
        known = GROUPS[group]
        chosen = fnmatch.filter(known, pattern or "*")
        if not chosen:
            hint = nearest(pattern, list(known))
            what = f"no collection of {group} is called '{shown(pattern, 80)}'"
            raise UsageError(what, where=part, hint=hint, code="collections-unknown")
        folders = {name: cache / group / name for name in chosen}
        return [str(folder.resolve()) if folder.is_dir() else known[name] for name, folder in folders.items()]
    if "*" not in part:
        return [part]
    pattern_path = local_path(part)
    fixed = list(itertools.takewhile(lambda piece: "*" not in piece, pattern_path.parts))
    rest = Path(*pattern_path.parts[len(fixed) :])
    folders_found = sorted(path.resolve() for path in Path(*fixed).glob(str(rest)) if path.is_dir())
    if not folders_found:
        raise UsageError("no folder is called so", where=shown(part, 200), code="collections-unknown")
    return [str(path) for path in folders_found]


def _is_here(name: str, cache: Path, *, is_sure: bool) -> bool:
    """Return whether a dataset can be opened without a download, its documents too.

    Args:
        name: of the dataset.
        cache: folder of caches.
        is_sure: it was named as a dataset, so that an error other than that it is not here is the user's to know.
    """
    try:
        with irds.offline():
            dataset = open_dataset(name, cache)
            if dataset.reads_catalog:
                irds.check_documents_are_local(id_of(whole_and_part(name)[0]))
    except MissingError:
        return False
    except CerankError:
        if is_sure:
            raise
        return False
    return bool(dataset.qrels)


def with_tests(recipe: Recipe, cache: Path) -> tuple[Recipe, tuple[str, ...]]:
    """Return a recipe whose test sets are single ones, in place of names for several, and what these came to.

    Raises:
        UsageError: a pattern matches nothing.
        MissingError: none of the collections of a name is on disk.
    """
    groups = {name: group_of(name, cache) for name in recipe.data.test if is_group(name)}
    if not groups:
        return recipe, ()
    tests = [member for name in recipe.data.test for member in (groups[name].here if name in groups else (name,))]
    data = msgspec.structs.replace(recipe.data, test=tuple(dict.fromkeys(tests)))
    return msgspec.structs.replace(recipe, data=data), tuple(group.note() for group in groups.values())


def matching(name: str, tests: Sequence[str], cache: Path) -> list[str]:
    """Return those of some test sets that a name for several holds, whether they are on disk or not.

    Test sets are named as a plan names them, folders by their whole paths.
    """
    named = {member for part in _BETWEEN.split(name) for member in _members(part.strip(), cache)}
    members = named | {_with_whole_path(member) for member in named}
    return [test for test in tests if {test, id_of(test)} & (members | {id_of(member) for member in members})]


def _with_whole_path(name: str) -> str:
    folder, mark, rest = name.partition("[")
    path, sharp, split = folder.partition("#")
    if not path.startswith(("./", "../", "~", "/")):
        return name
    return f"{local_path(path).resolve()}{sharp}{split}{mark}{rest}"


def check_names(tests: Sequence[str], where: str) -> None:
    """Check that tables name all test sets differently: by the last part of its path each that is a folder.

    Raises:
        UsageError: two would be taken for one.
    """
    taken: dict[str, str] = {}
    for test in tests:
        folder, mark, rest = test.partition("[")
        short = f"{Path(folder).name}{mark}{rest}" if local_path(folder).is_absolute() else test
        other = taken.setdefault(short, test)
        if other != test:
            what = f"{shown(other, 120)} and {shown(test, 120)} are both called {shown(short, 80)}, as tables name them"
            hint = "give one of the folders another name, or take them apart"
            raise UsageError(what, where=where, hint=hint, code="collections-same-name")
