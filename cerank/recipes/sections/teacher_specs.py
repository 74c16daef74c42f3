"""What `[teachers.NAME]` says: which model ranks candidates, how it is asked, and what that may cost.

Invariant: pure data; no prompt is filled in and no server is asked here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from cerank.core.decode import help_text
from cerank.text.safe_text import token_at

Kind = Literal[
    "listwise", "first", "setwise", "pairwise", "pointwise", "graded", "cross-encoder", "ensemble", "queries"
]

_Positive = Annotated[int, msgspec.Meta(ge=1, le=10**9)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
_Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
_Amount = Annotated[float, msgspec.Meta(ge=0.0, le=10.0**9)]

LONGEST_ALPHABET = 26  # letters from A to Z name the passages of a FIRST or setwise prompt
SCORED_KINDS: frozenset[str] = frozenset({"pairwise", "pointwise", "graded", "cross-encoder"})
NEEDS_LOG_PROBABILITIES: frozenset[str] = frozenset({"first", "pointwise"})
METHODS: dict[str, tuple[str, ...]] = {"setwise": ("heap", "bubble"), "pairwise": ("all", "sorted", "sliding")}
DEFAULT_TEMPLATES: dict[str, str] = {
    "listwise": "rankzephyr",
    "first": "first",
    "setwise": "setwise",
    "pairwise": "pairwise",
    "pointwise": "yes-no",
    "graded": "umbrela",
    "queries": "write-query",
}
NEWER_LIMIT = "max_completion_tokens"  # OpenAI's name of max_tokens for models that reject that
# Members of a request that cerank sets itself, with the key by which each is set.
SET_BY_KEYS = {
    "messages": "template", "prompt": "template", "model": "model", "temperature": "temperature",
    "seed": "sampling_seed", "max_tokens": "max_output",
}  # fmt: skip
# How a teacher is asked and billed decides nothing about what it answers.
OPERATIONAL = frozenset({
    "api_key", "concurrency", "timeout", "attempts", "max_failures", "max_cost", "max_calls", "max_tokens", "prices",
    "batch",
})  # fmt: skip


class TeacherSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A teacher that cerank makes: a model that ranks the candidates of a first stage."""

    kind: Annotated[Kind, help_text("how the model is asked; see `cerank guide teachers`")]
    model: Annotated[str, help_text("as the server calls it; in process: a base, a Hugging Face id, or a folder")] = ""
    server: Annotated[
        str, help_text('address of an OpenAI-compatible server, such as http://localhost:8000/v1; "" runs in process')
    ] = ""
    endpoint: Annotated[Literal["chat", "completions"], help_text("which of the server's endpoints is asked")] = "chat"
    api_key: Annotated[
        str, help_text("NAME of the environment variable or keyring entry that holds the key; never the key")
    ] = ""
    template: Annotated[str, help_text('shipped prompt, or a .toml file; "" takes the kind\'s own')] = ""

    depth: Annotated[_Positive, help_text("candidates of the first stage that are ranked for each query")] = 100
    window: Annotated[_Positive, help_text("passages in one prompt (listwise, first)")] = 20
    stride: Annotated[_Positive, help_text("ranks by which the window moves up; at most the window")] = 10
    passes: Annotated[_Positive, help_text("times the windows go over the list")] = 1
    shuffles: Annotated[
        _Positive, help_text("above 1: rank this many shuffled lists and merge them by Kemeny's rule (listwise, first)")
    ] = 1
    method: Annotated[str, help_text('setwise: "heap" or "bubble"; pairwise: "all", "sorted" or "sliding"')] = ""
    children: Annotated[_Positive, help_text("passages that a setwise prompt compares with the first")] = 3
    top: Annotated[_Positive, help_text("ranks that are sorted (setwise; pairwise unless it asks all)")] = 10
    passage_words: Annotated[_Positive, help_text("words of a passage in a prompt")] = 300

    temperature: Annotated[_Amount, help_text("always sent: servers have defaults of their own")] = 0.0
    sampling_seed: Annotated[int | None, help_text("sent to servers as `seed`; none by default")] = None
    max_output: Annotated[_Count, help_text("tokens of an answer; 0: as many as the kind needs")] = 0
    parameters: Annotated[
        dict[str, object], help_text("further members of each request, such as chat_template_kwargs")
    ] = {}

    members: Annotated[tuple[str, ...], help_text("ensemble: the teachers that are merged")] = ()
    fusion: Annotated[Literal["mean", "rrf", "kemeny"], help_text("ensemble: how they are merged")] = "rrf"

    batch: Annotated[
        bool, help_text("ask by the server's Batch API: cheaper, answers within a day, all queries a round together")
    ] = False

    concurrency: Annotated[_Positive, help_text("calls at once at most; fewer while the server is overloaded")] = 8
    timeout: Annotated[_Amount, help_text("seconds without an answer after which a call counts as stalled")] = 120.0
    attempts: Annotated[_Positive, help_text("times a call is sent at most if the server fails")] = 6
    max_failures: Annotated[_Share, help_text("share of failed calls above which the work stops")] = 0.1
    max_cost: Annotated[_Amount, help_text("money that one command or run may spend; 0: any; needs prices")] = 0.0
    max_calls: Annotated[_Count, help_text("calls that one command or run may make; 0: any")] = 0
    max_tokens: Annotated[_Count, help_text("tokens, in and out, of one command or run; 0: any")] = 0
    prices: Annotated[str, help_text('price table (.toml); "" takes prices.toml beside the settings')] = ""

    @property
    def template_name(self) -> str:
        """Return the name of the prompt template: the declared one, or the default of this kind of teacher."""
        return self.template or DEFAULT_TEMPLATES.get(self.kind, "")

    @property
    def sorting_method(self) -> str:
        """Return how a setwise or pairwise teacher sorts: the declared method, or the default of its kind."""
        return self.method or METHODS.get(self.kind, ("",))[0]

    @property
    def has_scores(self) -> bool:
        """Return whether the teacher gives scores; if not, it gives only an order."""
        if self.kind == "pairwise":
            return self.sorting_method == "all"
        return self.kind in SCORED_KINDS or (self.kind == "ensemble" and self.fusion == "mean")

    @property
    def ranks(self) -> bool:
        """Return whether the teacher ranks candidates; if not, it writes queries for `cerank data synthesize`."""
        return self.kind != "queries"

    @property
    def is_local(self) -> bool:
        """Return whether the model runs in this process."""
        return not self.server

    def decisive(self) -> dict[str, object]:
        """Return the settings that decide what the teacher answers, without those that hold their defaults."""
        values = {
            field.name: getattr(self, field.name)
            for field in msgspec.structs.fields(type(self))
            if field.name not in OPERATIONAL and (field.required or getattr(self, field.name) != _default(field))
        }
        return dict(msgspec.to_builtins(values))


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def teacher_mistakes(teachers: Mapping[str, TeacherSpec]) -> list[str]:
    """Return an error for each setting of a teacher that contradicts another, as `key.path: what`."""
    mistakes = []
    for name, spec in teachers.items():
        at = f"teachers.{name}"
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}", name):
            mistakes.append(f"{at}: a teacher's name holds letters, digits, '-' and '_' only")
        if name in RESERVED_NAMES:
            mistakes.append(f"{at}: 'cerank teach {name}' is a command; give the teacher another name")
        mistakes += _model_mistakes(at, spec) + _size_mistakes(at, spec)
        if spec.kind == "ensemble":
            mistakes += _member_mistakes(at, spec, teachers)
    return mistakes


RESERVED_NAMES = frozenset({"check", "labels", "make", "embedding"})


def _model_mistakes(at: str, spec: TeacherSpec) -> list[str]:
    mistakes = []
    if spec.kind != "ensemble" and not spec.model:
        mistakes.append(f"{at}.model: missing; name the model that ranks")
    if spec.kind == "cross-encoder" and spec.server:
        mistakes.append(f"{at}.server: a cross-encoder runs in process; leave it out")
    if spec.server and not re.match(r"https?://[^\s/]+", spec.server):
        mistakes.append(f"{at}.server: not the address of a server; such as http://localhost:8000/v1")
    if spec.api_key and (
        not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}", spec.api_key) or token_at(spec.api_key) >= 0
    ):
        mistakes.append(f"{at}.api_key: the NAME of a variable or keyring entry, not the key itself")
    if spec.batch and not spec.server:
        mistakes.append(f"{at}.batch: needs a server with a Batch API")
    mistakes += [
        f"{at}.parameters.{name}: set by {at}.{key}" for name, key in SET_BY_KEYS.items() if name in spec.parameters
    ]
    if spec.parameters.get("stream") or spec.parameters.get("n", 1) != 1:
        mistakes.append(f"{at}.parameters: one answer is read, in one piece; leave out stream and n")
    if spec.timeout == 0:
        mistakes.append(f"{at}.timeout: 0 s leaves no time for an answer")
    return mistakes


def _size_mistakes(at: str, spec: TeacherSpec) -> list[str]:
    mistakes = []
    if spec.kind in {"listwise", "first"}:
        if spec.window < 2:
            mistakes.append(f"{at}.window: one passage alone cannot be ranked")
        if spec.stride > spec.window:
            mistakes.append(f"{at}.stride: {spec.stride} is more than the window of {spec.window} and leaves gaps")
        if spec.stride == spec.window and spec.depth > spec.window:
            mistakes.append(f"{at}.stride: windows that do not overlap cannot move a passage up; less than the window")
    elif spec.shuffles > 1:
        mistakes.append(f'{at}.shuffles: needs kind "listwise" or "first"')
    if spec.kind == "first" and spec.window > LONGEST_ALPHABET - 6:
        mistakes.append(f"{at}.window: at most 20; servers return the log-probabilities of 20 tokens")
    if spec.kind == "setwise" and spec.children >= LONGEST_ALPHABET:
        mistakes.append(f"{at}.children: at most {LONGEST_ALPHABET - 1}, for passages are named by letters")
    known = METHODS.get(spec.kind, ())
    if spec.method and spec.method not in known:
        choices = " or ".join(f'"{choice}"' for choice in known) or "none: leave it out"
        mistakes.append(f"{at}.method: a {spec.kind} teacher takes {choices}")
    return mistakes


def _member_mistakes(at: str, spec: TeacherSpec, teachers: Mapping[str, TeacherSpec]) -> list[str]:
    mistakes = [] if len(spec.members) >= 2 else [f"{at}.members: an ensemble merges two teachers or more"]
    for member in spec.members:
        other = teachers.get(member)
        if other is None:
            mistakes.append(f"{at}.members: no teacher is called '{member}'")
        elif other.kind == "ensemble":
            mistakes.append(f"{at}.members: '{member}' is an ensemble itself")
        elif not other.ranks:
            mistakes.append(f"{at}.members: '{member}' ranks nothing")
        elif spec.fusion == "mean" and not other.has_scores:
            mistakes.append(f"{at}.members: fusion \"mean\" needs scores, and '{member}' gives an order alone")
    if len(set(spec.members)) != len(spec.members):
        mistakes.append(f"{at}.members: a teacher appears twice")
    return mistakes
