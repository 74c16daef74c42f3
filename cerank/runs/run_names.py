"""Short names of runs, two words that are easy to say and type, such as brisk-otter.

Invariant: a run's name follows from its id alone unless another run of the lab has that name already; it is kept in the
run's directory when the run is created and never changes. It is no part of the plan.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import msgspec

from cerank.files import json_records
from cerank.files.disk import DamagedError
from cerank.runs import overlapped_reads
from cerank.runs.layout import RunFolder

ADJECTIVES = tuple(
    """
    able agile airy amber apt azure blithe bold brave bright brisk calm candid cheery civil clear clever cosmic cosy
    crisp curly daring deft eager early easy equal exact fair famed fancy fine firm fleet fond fresh gentle glad
    golden good grand great handy happy hardy honest humble ideal jolly keen kind large light lively loyal lucid
    lucky lunar merry mild modern neat nimble noble novel patient placid polite prime proud quick quiet rapid ready
    regal robust round serene sharp shiny silver smart snappy solar solid spry steady sunny swift tidy vivid warm
    wise witty zesty alert dapper frosty mellow nifty
    """.split()  # noqa: SIM905 - a list that can be read
)
ANIMALS = tuple(
    """
    alpaca badger beaver bison bobcat camel canary caribou cat cheetah cicada condor crane cricket curlew deer dingo
    dolphin dove eagle egret eider elk falcon ferret finch firefly fox gazelle gecko gibbon giraffe gopher hare hawk
    heron hippo horse ibex ibis iguana impala jackal jaguar kestrel kite kiwi koala lark lemming lemur leopard lion
    llama lobster lynx macaw magpie marlin marmot marten moose narwhal newt ocelot oriole osprey otter owl oyster
    panda panther parrot pelican penguin plover pony puffin puma quail rabbit raccoon raven robin salmon seal
    sparrow stork swan tapir tern tiger toucan trout turtle walrus wombat wren yak zebra
    """.split()  # noqa: SIM905 - the same
)
_TRIES = 50  # pairs of words tried for one run before a number is appended
_NAME = re.compile(r"[a-z]+-[a-z]+(-[1-9][0-9]*)?")
cached_names: dict[Path, str] = {}  # names read from run directories; they never change


class ShortName(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a run's short name in its folder."""

    name: str


def name_candidates(run_id: str) -> Iterator[str]:
    """Yield the names that a run may have, the first that is free being its own; they never end."""
    start = int.from_bytes(hashlib.sha256(run_id.encode("utf-8", "surrogateescape")).digest()[:8], "big")
    for turn in range(_TRIES):
        first, second = divmod(start + turn * 7919, len(ANIMALS))  # a prime, so that both words change
        yield f"{ADJECTIVES[first % len(ADJECTIVES)]}-{ANIMALS[second]}"
    base, number = next(name_candidates(run_id)), 2
    while True:
        yield f"{base}-{number}"
        number += 1


def choose(run_id: str, taken: Collection[str]) -> str:
    """Return the name of a run, given the names that other runs have."""
    return next(name for name in name_candidates(run_id) if name not in taken)


def save(folder: RunFolder, name: str) -> None:
    """Write a run's short name into its directory.

    Raises:
        RunFailedError: the disk refuses.
    """
    json_records.save(folder.short_name, ShortName(name=name))


def of_runs(folders: Sequence[RunFolder]) -> dict[str, str]:
    """Return the short name of each run by its id, no two the same.

    Where two directories keep the same name (one was moved here from another lab), the first has it. Runs whose
    directory keeps none, of an older release for example, get one that no other run has.

    Args:
        folders: all runs of a lab, the oldest first.
    """
    names = overlapped_reads.read_all(recorded, folders)
    own = {folder.name: name for folder, name in zip(folders, names, strict=True)}
    named: dict[str, str] = {}
    taken: set[str] = set()
    for run_id, name in own.items():
        if name and name not in taken:
            named[run_id] = name
            taken.add(name)
    for run_id in own:
        if run_id not in named:
            named[run_id] = choose(run_id, taken)
            taken.add(named[run_id])
    return named


def recorded(folder: RunFolder) -> str:
    """Return the name recorded in the folder; "" if there is none that is readable."""
    if folder.path not in cached_names:
        try:
            record = json_records.load_if_there(folder.short_name, ShortName)
        except (DamagedError, OSError):
            return ""
        if record is None or not _NAME.fullmatch(record.name):
            return ""
        cached_names[folder.path] = record.name
    return cached_names[folder.path]
