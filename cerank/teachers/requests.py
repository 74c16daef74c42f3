"""What is asked of a teacher: whose candidates it ranks, what that may take, and what the caller is told meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from cerank.datasets.dataset import Dataset
from cerank.recipes.sections.teacher_specs import TeacherSpec
from cerank.teachers.budget import Caps
from cerank.teachers.engines.engine import Engine
from cerank.teachers.work import TeachingProgress


class Hooks(msgspec.Struct, frozen=True):
    """Functions that the caller gives: to report progress, to stop the work, and to print."""

    progress: Callable[[TeachingProgress], object] = lambda _progress: None
    should_stop: Callable[[], str] = str
    tell: Callable[[str], object] = lambda _text: None
    engine: Callable[[TeacherSpec], Engine] | None = None  # for tests, in place of the declared server


class TeachRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A teacher, the queries whose candidates it ranks, and the caps on what that may cost."""

    lab: Path
    cache: Path
    name: str
    teachers: dict[str, TeacherSpec]  # all of the recipe
    dataset: Dataset
    first_stage: str
    queries: tuple[str, ...]
    depth: int = 0  # 0 takes the teacher's
    caps: Caps | None = None  # None takes the teacher's
    prices: Path | None = None
    retry_failed: bool = False
    device: str = "cpu"
    threads: int = 1
    fetch: bool = True
    sample: int = 0  # which of several answers to the same prompts

    @property
    def spec(self) -> TeacherSpec:
        """The teacher's settings."""
        spec = self.teachers[self.name]
        return msgspec.structs.replace(spec, depth=self.depth) if self.depth else spec
