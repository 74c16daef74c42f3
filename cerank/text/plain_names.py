"""Names of files for any text: lower case, without dots, and no way out of their folder."""

from __future__ import annotations

import hashlib
import re

_CLIP = 60  # characters; two slugs and an ending stay below the 255 bytes a name may have


def plain_name(text: str, limit: int = _CLIP) -> str:
    """Return `text` as lower-case ASCII letters, digits, `-` and `_`; different texts may give the same name."""
    name = re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")
    return name[:limit].strip("-") or "x"


def slug(text: str) -> str:
    """Return a file name for any text: the text itself if it already is one; different texts never share a name.

    Lower case, for some file systems do not tell "A" from "a", and without dots, which part two slugs in a name.
    """
    name = plain_name(text)
    if name == text and not re.search(r"-[0-9a-f]{8}$", text):  # what looks like a suffix of ours gets one too
        return text
    return f"{name}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
