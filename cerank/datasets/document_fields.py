"""Datasets whose documents have fields: texts by a template, and titles.

Invariant: a dataset whose documents are written by a template has other fingerprints than without, so that nothing made
for the one, such as an index or scores, is taken for the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from cerank.datasets.dataset import Dataset, Documents, FieldReader
from cerank.datasets.document_templates import WHERE, parse_template
from cerank.datasets.mixtures import MixedDocuments, mixture_of
from cerank.errors import UsageError
from cerank.files.hashing import sha256_text
from cerank.text.safe_text import shown


def with_template(dataset: Dataset, text: str, where: str = WHERE) -> Dataset:
    """Return the dataset with documents whose texts the template makes; the same dataset for "".

    The template decides what everything reads, a BM25 index, too; so the dataset's fingerprint is another. The
    documents of each set of a mixture are written by it.

    Raises:
        UsageError: the template is malformed, or names a field that the documents do not have.
    """
    if not text:
        return dataset
    if dataset.members:
        members = {number: with_template(member, text, where) for number, member in dataset.members.items()}
        return replace(mixture_of(dataset.name, members, dataset.weights), cache=dataset.cache)
    template = parse_template(text, where)
    _check_fields(dataset, template.fields, where)
    documents = _reader_of(dataset, where).documents(template)
    notes = (*dataset.notes, f"its documents are written {shown(text, 200)}")
    identity = sha256_text(f"{dataset.identity}\n{text}")
    return replace(dataset, documents=documents, identity=identity, notes=notes)


def check_template(dataset: Dataset, text: str, where: str = WHERE) -> None:
    """Check that the documents have the fields that a template names, without reading them all; "" names none.

    Raises:
        UsageError: as `with_template`.
    """
    if text:
        template = parse_template(text, where)
        for each in dataset.members.values() or (dataset,):
            _check_fields(each, template.fields, where)


def titles_of(dataset: Dataset, where: str = "passages.title") -> Callable[[Sequence[str]], list[str]]:
    """Return a function from document ids to the titles of those documents, in order.

    Raises:
        UsageError: the documents have no field `title`.
    """
    check_titles(dataset, where)
    template = parse_template("{title}")
    if dataset.members:
        titles = {number: _reader_of(member, where).documents(template) for number, member in dataset.members.items()}
        return MixedDocuments(titles, dataset.name).texts
    return _reader_of(dataset, where).documents(template).texts


def check_titles(dataset: Dataset, where: str = "passages.title") -> None:
    """Check that the documents have titles, without reading them all.

    Raises:
        UsageError: they have no field `title`.
    """
    for each in dataset.members.values() or (dataset,):
        _check_fields(each, ("title",), where)


def _reader_of(dataset: Dataset, where: str) -> FieldReader:
    if dataset.field_reader is None:
        what = f"the documents of {dataset.name} have a text and no fields"
        raise UsageError(what, where=where, hint="leave it out", code="document-field-unknown")
    return dataset.field_reader


def _check_fields(dataset: Dataset, names: Sequence[str], where: str) -> None:
    known = _reader_of(dataset, where).fields()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(
            f"the documents of {dataset.name} have no field '{shown(unknown[0], 60)}'",
            where=where,
            hint=f"their fields: {shown(', '.join(known), 300)}",
            code="document-field-unknown",
        )


class OtherFingerprint:
    """Documents under a fingerprint of their own: what their texts are made of is not the source file alone."""

    def __init__(self, documents: Documents, fingerprint: str) -> None:
        self._documents, self._fingerprint = documents, fingerprint

    def text(self, doc_id: str) -> str:
        """Return the text of one document; MissingError where there is none."""
        return self._documents.text(doc_id)

    def texts(self, doc_ids: Sequence[str]) -> list[str]:
        """Return the texts of `doc_ids`, in their order."""
        return self._documents.texts(doc_ids)

    def __contains__(self, doc_id: object) -> bool:
        return doc_id in self._documents

    def __len__(self) -> int:
        return len(self._documents)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._documents)

    def fingerprint(self) -> str:
        """Return the SHA-256 over the source and what is made of it."""
        return self._fingerprint
