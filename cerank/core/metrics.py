"""Steps, validations, events and progress of a run: the rows of the journals in its folder."""

from __future__ import annotations

import msgspec


class Position(msgspec.Struct, frozen=True, order=True):
    """A position in a run: the index of the stage in the chain, and the steps done in it."""

    stage: int
    step: int


class StepMetrics(msgspec.Struct, frozen=True, tag="step"):
    """The metrics of one training step, written after it as a line of readings.jsonl.

    Everything but `seconds` and `attempt` is a function of the plan: a repeated step must give bit-identical values.
    """

    stage: int
    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    groups: int  # groups the loss was the mean of
    pairs: int  # query-document pairs that went through the model
    seconds: float = 0.0  # wall time of the step
    attempt: int = 0


class Validation(msgspec.Struct, frozen=True, tag="validation"):
    """Measures on the validation queries after `step` steps of a stage; step 0 is the stage's start."""

    stage: int
    step: int
    measures: dict[str, float]
    seconds: float = 0.0
    attempt: int = 0
    fresh_head: bool = False  # the head is as it was sampled: the values are noise, whatever the encoder is worth


class Scoring(msgspec.Struct, frozen=True):
    """One piece of a re-ranking that went through the model; scores kept from an earlier re-ranking are not counted."""

    system: str
    dataset: str
    pairs: int
    seconds: float  # wall time
    attempt: int = 0


class RankRow(msgspec.Struct, frozen=True):
    """What one of several processes did in the steps of a stage since the row before; written at each validation."""

    stage: int
    step: int  # the last of them
    rank: int
    device: str
    tokens: int
    seconds: float  # in forward and backward passes of its own shards
    waited: float  # seconds until the others were done, and for the exchange of gradients
    memory: int = 0  # bytes of the GPU that were in use at most; 0 on a CPU
    attempt: int = 0


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine and the worker's process were doing at one moment of a run; None where it was not known."""

    time: str  # UTC, ISO 8601
    cpu: float | None = None  # share of all cores, since the row before
    memory: int | None = None  # bytes in use, of the whole machine
    memory_total: int | None = None
    worker_cores: float | None = None  # busy with the worker, since the row before
    worker_memory: int | None = None  # bytes resident
    gpu: float | None = None  # share of time the run's GPU was busy
    gpu_memory: int | None = None  # bytes in use on it
    attempt: int = 0


class Event(msgspec.Struct, frozen=True):
    """Something that happened to a run: started, stopped, checkpoint saved or rejected, replay mismatch."""

    kind: str
    text: str
    time: str  # UTC, ISO 8601
    attempt: int = 0
    position: Position | None = None


class Progress(msgspec.Struct, frozen=True):
    """What a worker last reported, rewritten every 2 seconds; a hint for display, never a result."""

    phase: str  # "start", "wait", "candidates", "teacher", "train", "validate", "re-rank", "measure"
    detail: str = ""  # the stage or dataset at work
    done: int = 0  # units of the phase: steps, queries
    total: int = 0  # 0 where they are not counted
    pairs_per_second: float = 0.0
    seconds_left: float = 0.0  # for this phase
    run_share: float = 0.0  # completed fraction of the whole run, 0 to 1
    run_seconds_left: float | None = None  # for the whole run; None until it was estimated
    time: str = ""  # UTC, ISO 8601
    attempt: int = 0

    @property
    def expected_seconds(self) -> float | None:
        """Return the seconds left of the run, else of its phase; None while neither is known."""
        if self.run_seconds_left is not None:
            return self.run_seconds_left
        return self.seconds_left if self.seconds_left > 0 else None  # 0 until the phase has done its first unit
