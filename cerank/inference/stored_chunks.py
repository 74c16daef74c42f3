"""Keep the scores of finished chunks of queries on disk, for a re-ranking that is resumed or shared.

Invariant: a chunk is there whole or not at all, and its checksum says whether it still is what was written.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.errors import MissingError, UsageError
from cerank.files import disk, json_records, manifests

if TYPE_CHECKING:
    from cerank.inference.score_cache import Scores  # a merge needs no torch, which that module imports

_IDENTITY = "identity.json"


class StoredChunks:
    """The scores of finished chunks, each in a folder of its own.

    Args:
        path_of: returns the folder of a chunk by its number, from 0.
    """

    def __init__(self, path_of: Callable[[int], Path]) -> None:
        self._path = path_of

    def load(self, number: int) -> Scores | None:
        """Return the scores of a chunk that is finished; a damaged one is renamed and counts as not finished."""
        path = self._path(number)
        if not path.is_dir():
            return None
        try:
            manifests.verify_folder(path)
        except disk.DamagedError:
            disk.quarantine(path)
            return None
        return json_records.decode((path / "scores.json").read_bytes(), dict[str, dict[str, float]])

    def save(self, number: int, scores: Scores) -> None:
        """Write the scores of a finished chunk, whole or not at all."""
        with manifests.checksummed_folder(self._path(number)) as inside:
            disk.write(inside / "scores.json", msgspec.json.encode(scores))


class ShardIdentity(msgspec.Struct, frozen=True):
    """What the shards of one output have in common."""

    shards: int  # how many there are
    chunks: int  # chunks of queries of all shards
    model: str  # fingerprint of the model's folder
    candidates: str  # SHA-256 of the candidates, as a TREC run
    collection: str  # fingerprint of the documents
    computed: str = ""  # SHA-256 of what else decides the bits of scores: hardware, precision, threads, versions


class OutputShards:
    """The finished chunks of an output file, in a folder beside it, computed by any number of processes.

    Args:
        output: the file that is written in the end.
        identity: what the shards have in common; `computed` is compared where both sides give it.

    Raises:
        UsageError: the folder holds shards of another re-ranking.
    """

    def __init__(self, output: Path, identity: ShardIdentity) -> None:
        self.output, self.folder = output, output.with_name(f"{output.name}.shards")
        self.chunks = StoredChunks(lambda number: self.folder / f"chunk-{number:06d}")
        known = json_records.load_if_there(self.folder / _IDENTITY, ShardIdentity)
        self.identity = known or identity
        comparable = (
            identity if identity.computed else msgspec.structs.replace(identity, computed=self.identity.computed)
        )
        if not identity.shards:  # where they are merged, the number is that of the shards
            comparable = msgspec.structs.replace(comparable, shards=self.identity.shards)
        different = [
            name
            for name in ShardIdentity.__struct_fields__
            if getattr(comparable, name) != getattr(self.identity, name)
        ]
        if different:
            raise UsageError(
                f"the shards there are of another re-ranking: {', '.join(different)} differ",
                where=str(self.folder),
                hint="give the same command for every shard, on devices of one kind, or remove the folder",
                code="shards-differ",
            )

    def begin(self) -> None:
        """Record what the shards have in common; several processes may do so at once, all with the same bytes."""
        disk.make_folder(self.folder)
        path = self.folder / _IDENTITY
        if not path.exists():
            own = path.with_name(f".{_IDENTITY}.{os.getpid()}-{secrets.token_hex(4)}")  # each writes a file of its own
            json_records.save(own, self.identity)
            disk.rename(own, path)

    def numbers_of(self, shard: int) -> range:
        """Return the numbers of the chunks of a shard, from 1: every so many, so that all shards have equal work."""
        return range(shard - 1, self.identity.chunks, self.identity.shards)

    def missing(self, shard: int) -> list[int]:
        """Return the numbers of the chunks of a shard, from 1, that are not there, or damaged."""
        return [number for number in self.numbers_of(shard) if self.chunks.load(number) is None]

    def unfinished(self) -> list[int]:
        """Return the shards, from 1, of which chunks are missing."""
        missing = (n for n in range(self.identity.chunks) if not (self.folder / f"chunk-{n:06d}").is_dir())
        return sorted({number % max(1, self.identity.shards) + 1 for number in missing})

    def merged(self) -> Scores:
        """Return the scores of all chunks, in the order of the queries.

        Raises:
            MissingError: there are no shards, or one is not finished, or damaged.
        """
        if not self.identity.shards:
            raise MissingError(
                "there are no shards of this output",
                where=str(self.folder),
                hint="give the command with --shard 1/N to N/N first, with the same --output",
                code="shards-missing",
            )
        scores: Scores = {}
        for number in range(self.identity.chunks):
            of_chunk = self.chunks.load(number)
            if of_chunk is None:
                shards = ", ".join(f"{shard}/{self.identity.shards}" for shard in self.unfinished())
                raise MissingError(
                    f"shards that are not finished: {shards or 'all'}",
                    where=str(self.folder),
                    hint="give the command with --shard for each of them; finished parts are not computed again",
                    code="shards-missing",
                )
            scores |= of_chunk
        return scores


def parse_shard(text: str) -> tuple[int, int] | None:
    """Return (number of the shard from 1, number of shards) from such as "3/16"; None for "".

    Raises:
        UsageError: it is none of them.

    >>> parse_shard("3/16")
    (3, 16)
    """
    if not text:
        return None
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) <= 10_000):
        hint = "the third of sixteen is --shard 3/16"
        raise UsageError(f"not a shard: '{text[:40]}'", where="--shard", hint=hint, code="shard-wrong")
    return int(number), int(count)
