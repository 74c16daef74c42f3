"""The records that a run directory holds besides its journals; `json_records` reads and writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from cerank.files import json_records
from cerank.files.json_records import decoder_of, encode_record
from cerank.recipes.plan import Plan

DOCUMENTS_CUT = "documents cut"  # kind of the event that says how many documents a system read only in part


class StoredPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What plan.json holds. The hash tells a plan that was edited from the one that was made; the fingerprint, which a
    later release may compute otherwise, is the run's identity as it was when it was made.
    """

    fingerprint: str
    sha256: str  # hash of the bytes of `plan`
    plan: msgspec.Raw

    @classmethod
    def of(cls, plan: Plan) -> StoredPlan:
        """Return the plan as plan.json holds it."""
        data = encode_record(plan, decoder_of(Plan), "plan.json")
        return cls(plan.fingerprint, hashlib.sha256(data).hexdigest(), msgspec.Raw(data))


class RunPlace(msgspec.Struct, frozen=True):
    """Where a run that was copied from another lab finds what its plan names by a path of the other machine."""

    cache: str  # folder of indexes and built datasets


class Precisions(msgspec.Struct, frozen=True):
    """The precision that each stage of a run computes in, where its recipe leaves it to the device."""

    chosen: dict[str, str]  # stage -> "fp32" or "bf16"
    reranking: dict[str, str] = {}  # stage -> precision of its re-ranking, where that is another one


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One start of a worker on a run: what it ran on, and what that lets it promise."""

    number: int  # from 1
    started: str  # UTC, ISO 8601
    versions: dict[str, str] = {}
    hostname: str = ""
    cpu: str = ""
    threads: int = 0
    device: str = ""
    determinism: str = ""  # the promise, in words
    plan: str = ""  # fingerprint
    code: str = ""  # hash of cerank's own source


class ReusedStage(msgspec.Struct, frozen=True, kw_only=True):
    """A stage that was not trained here: another run of the lab had trained the very same."""

    run: str  # its name
    plan: str  # its plan's fingerprint
    identity: str  # key of the stage, equal in both runs: `planning.stage_keys.stage_key`
    sha256: str  # hash of the model folder's manifest, equal in both runs
    time: str  # UTC, ISO 8601
    attempt: int = 0


class QueryMeasures(msgspec.Struct, frozen=True):
    """A line of a measures file: the values of one query."""

    query_id: str
    measures: dict[str, float]


def encode_measures(values: Mapping[str, Mapping[str, float]]) -> bytes:
    """Return measure -> query -> value as the bytes of a measures file, one line for each query."""
    encoder = msgspec.json.Encoder()
    queries = next(iter(values.values()), {})
    rows = [QueryMeasures(query, {name: values[name][query] for name in values}) for query in queries]
    return b"".join(encoder.encode(row) + b"\n" for row in rows)


def decode_measures(data: bytes) -> list[QueryMeasures]:
    """Return the lines of a measures file.

    Raises:
        ValueError, RecursionError: a line is no `QueryMeasures`.
    """
    return json_records.decoder_of(QueryMeasures).decode_lines(data)


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A run that came to its end."""

    time: str  # UTC, ISO 8601
    attempt: int = 0
    seconds: float = 0.0  # duration of the steps and validations that count
    seals: str = ""  # sha256 of the run's list of checksums; "" for a run of an older release


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run stopped for good; what, where and hint as in `CerankError`."""

    kind: str  # the error's class, such as "RunFailedError", or "crash" for an internal error
    what: str
    where: str = ""
    hint: str = ""
    traceback: str = ""  # path of the file with the traceback, relative to the run; "" without
    time: str = ""  # UTC, ISO 8601
    attempt: int = 0


class TeacherCost(msgspec.Struct, frozen=True, kw_only=True):
    """What the answers of a teacher took that a stage, or a system on a test, rests on; part of `MadeRanking`.

    Answers that the lab had already count, too: without them the stage would have needed them.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    money: float | None = None  # by the price table; None without a price
    currency: str = ""
