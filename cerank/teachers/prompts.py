"""Prompts from templates: the shipped ones hold the words of rank_llm, umbrela and llm-rankers, byte for byte.

Invariant: the same template, query and passages give the same messages, whatever is installed beside cerank.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from cerank.core.decode import LARGEST_TOML, decode_table, toml_table
from cerank.errors import FormatError, UsageError, os_error
from cerank.files.hashing import sha256_json
from cerank.files.safe_open import read_file
from cerank.recipes.sections.teacher_specs import Kind, TeacherSpec
from cerank.registry import nearest

_SHIPPED = Path(__file__).parent / "templates"
_BRACKETED = re.compile(r"\[(\d+)\]")
_FIELDS: dict[str, tuple[str, ...]] = {
    "system": (),
    "prefix": ("num", "query"),
    "prefix_assistant": ("num", "query"),
    "body": ("rank", "candidate"),
    "body_assistant": ("rank",),
    "suffix": ("num", "query", "psg_ids"),
}
_SINGLE_FIELDS = ("query", "passage")  # placeholders in the body of a template that shows one passage


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Template(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parts of a prompt, with `{query}`, `{num}`, `{rank}` and `{candidate}` (or `{passage}`) to be filled in."""

    kind: Kind
    identifiers: Literal["numbers", "letters"] = "numbers"
    system: str = ""
    prefix: str = ""
    prefix_assistant: str = ""  # what the assistant is said to have answered to the prefix
    body: str
    body_assistant: str = ""  # and to each passage; then passages are turns of their own
    separator: str = ""  # between passages
    suffix: str = ""
    answer_start: str = ""  # the answer is made to begin with this

    @property
    def sha256(self) -> str:
        """SHA-256 of the template's text."""
        return sha256_json(self)

    @property
    def shows_one(self) -> bool:
        """Return whether a prompt shows one passage alone."""
        return self.kind in {"pointwise", "graded", "queries"}


def shipped() -> list[str]:
    """Return the names of the templates that come with cerank, sorted."""
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def load(name: str, kind: Kind) -> Template:
    """Return the template of a shipped name or in a `.toml` file.

    Raises:
        UsageError: no such template, or one for another kind of teacher.
        FormatError: not a template.
    """
    is_path = name.endswith(".toml") or "/" in name
    if not is_path and name not in shipped():
        hint = f"{nearest(name, shipped())}; a template of your own is given by its path, which ends in .toml"
        raise UsageError(f"no template is called '{name}'", hint=hint)
    path = Path(name) if is_path else _SHIPPED / f"{name}.toml"
    try:
        source = read_file(path, LARGEST_TOML + 1)
    except OSError as error:
        raise os_error(error, path) from error
    mistakes: list[str] = []
    template = decode_table(Template, toml_table(source, str(path)), "", mistakes)
    if template is not None:
        mistakes += _placeholder_mistakes(template)
    if template is None or mistakes:
        raise FormatError(
            "\n".join(mistakes), where=str(path), hint="`cerank guide teachers` shows a template", code="wrong-template"
        )
    if template.kind != kind:
        fitting = ", ".join(other for other in shipped() if _kind_of(other) == kind)
        what = f"template '{name}' is for {template.kind} teachers, and this one is {kind}"
        raise UsageError(what, hint=f"those that fit: {fitting}")
    return template


def template_of(spec: TeacherSpec) -> Template:
    """Return the template of a teacher; raises as `load`."""
    return load(spec.template_name, spec.kind)


def _kind_of(name: str) -> object:
    return toml_table((_SHIPPED / f"{name}.toml").read_bytes(), name).get("kind")


def _placeholder_mistakes(template: Template) -> list[str]:
    allowed = dict(_FIELDS)
    required: dict[str, tuple[str, ...]] = {"body": ("rank", "candidate")}
    if template.shows_one:
        allowed["body"] = required["body"] = _SINGLE_FIELDS if template.kind != "queries" else _SINGLE_FIELDS[1:]
    mistakes = []
    used_anywhere: set[str] = set()
    for part, fields in allowed.items():
        try:
            used = {name for _, name, _, _ in string.Formatter().parse(getattr(template, part)) if name is not None}
        except ValueError as error:
            mistakes.append(f"{part}: {error}; a brace that is meant is written twice")
            continue
        used_anywhere |= used
        mistakes += [f"{part}: no placeholder {{{name}}}; there are {_listed(fields)}" for name in used - {*fields}]
        mistakes += [f"{part}: lacks {{{name}}}" for name in required.get(part, ()) if name not in used]
    if "query" not in used_anywhere and template.kind != "queries":
        mistakes.append("prefix: neither it nor the suffix has {query}")
    if template.kind == "listwise" and template.identifiers == "letters":
        mistakes.append("identifiers: a listwise answer is read as an order of numbers; letters are for other kinds")
    if template.body_assistant and not template.suffix:
        mistakes.append("suffix: missing; a conversation must end with a question")
    return mistakes


def _listed(fields: Sequence[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in fields) or "none"


def clean_passage(text: str, words: int) -> str:
    """Return a passage as rank_llm puts it into a prompt: mended by ftfy, cut to `words` words, `[7]` as `(7)`."""
    from ftfy import fix_text

    return clean_query(" ".join(fix_text(text.strip()).split()[:words]))


def clean_query(text: str) -> str:
    """Return a query with `[7]` as `(7)`, so that it cannot be taken for a passage's identifier."""
    return _BRACKETED.sub(r"(\1)", text)


def identifier(template: Template, place: int) -> str:
    """Return what a prompt calls the passage at `place`, from 0: "1" or "A"."""
    return chr(ord("A") + place) if template.identifiers == "letters" else str(place + 1)


def fill(template: Template, query: str, passages: Sequence[str]) -> tuple[Message, ...]:
    """Return the conversation that asks about `passages`, which are cleaned already.

    Args:
        template: with a body for each passage; one that shows one passage takes exactly one.
        query: as the user wrote it.
        passages: in the order of their identifiers.
    """
    query = clean_query(query)
    messages = [Message("system", template.system)] if template.system else []
    if template.shows_one:
        (passage,) = passages
        return (*messages, Message("user", template.body.format(query=query, passage=passage)))
    ids = "[" + ", ".join(f"PASSAGE{number + 1}" for number in range(len(passages))) + "]"
    facts = {"num": len(passages), "query": query, "psg_ids": ids}
    prefix, suffix = template.prefix.format(**facts), template.suffix.format(**facts)
    names = [identifier(template, place) for place in range(len(passages))]
    bodies = [template.body.format(rank=name, candidate=passage) for name, passage in zip(names, passages, strict=True)]
    if template.prefix_assistant:
        messages += [Message("user", prefix), Message("assistant", template.prefix_assistant.format(**facts))]
        prefix = ""
    if template.body_assistant:
        for name, body in zip(names, bodies, strict=True):
            messages += [Message("user", body), Message("assistant", template.body_assistant.format(rank=name))]
        return (*messages, Message("user", suffix))
    return (*messages, Message("user", prefix + template.separator.join(bodies) + suffix))
