"""Write the text of a document from its fields, as a template such as "{title}. {text}" says.

Invariant: a template names only fields that the documents have, which is checked when it is put to use; a document that
lacks one of them has nothing in its place.
"""

from __future__ import annotations

import string
from collections.abc import Mapping

import msgspec

from cerank.errors import UsageError
from cerank.text.safe_text import shown

WHERE = "data.document_template"
_HINT = 'such as "{title}. {text}"; a brace itself is written {{ or }}'


class DocumentTemplate(msgspec.Struct, frozen=True):
    """A parsed template: literal texts, each followed by a field; the last one by none."""

    text: str
    parts: tuple[tuple[str, str], ...]  # (literal text, name of the field behind it or "")

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the fields that the template names, each once."""
        return tuple(dict.fromkeys(name for _, name in self.parts if name))

    def fill(self, values: Mapping[str, str]) -> str:
        """Return the text of a document with these values of its fields, without blanks around it.

        >>> parse_template("{title}. {text}").fill({"title": "Otters", "text": "They sleep afloat."})
        'Otters. They sleep afloat.'
        """
        return "".join(literal + (values.get(name) or "" if name else "") for literal, name in self.parts).strip()


def parse_template(text: str, where: str = WHERE) -> DocumentTemplate:
    """Return the parsed template.

    Raises:
        UsageError: braces do not match, or hold anything but the name of a field; or there is no field at all.
    """
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise UsageError(f"{error}", where=where, hint=_HINT, code="template-wrong") from None
    for _, name, form, conversion in parts:
        if name is not None and (not name or not name.replace("-", "_").isidentifier() or form or conversion):
            what = f"'{{{shown(name, 60)}}}' is not the name of a field in braces"
            raise UsageError(what, where=where, hint=_HINT, code="template-wrong")
    template = DocumentTemplate(text, tuple((literal, name or "") for literal, name, _, _ in parts))
    if not template.fields:
        raise UsageError("the template names no field", where=where, hint=_HINT, code="template-wrong")
    return template
