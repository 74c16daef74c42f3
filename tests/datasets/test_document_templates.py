"""Documents of several fields: texts by a template, titles, and refusals that name the fields there are."""

from __future__ import annotations

import json

import pytest

from cerank.datasets import local_folders
from cerank.datasets.document_fields import titles_of, with_template
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import UsageError
from tests.refusals import refused

DOCUMENTS = [
    ("D1", "http://a.example", "Otters", "They sleep afloat."),
    ("D2", "http://b.example", "", "A page without a title."),
]
ROBUST = """\
<DOC>
<DOCNO> FT911-1 </DOCNO>
<DATE>910514</DATE>
<HEADLINE>
FT 14 MAY 91 / Otters
</HEADLINE>
<TEXT>
They <F P=100>sleep</F> afloat &amp; eat.
</TEXT>
</DOC>
"""


def write_jsonl(folder):
    rows = [{"doc_id": key, "url": url, "title": title, "body": body} for key, url, title, body in DOCUMENTS]
    (folder / "docs.jsonl").write_text("\n".join(map(json.dumps, rows)))


def write_beir(folder):
    rows = [{"_id": key, "title": title, "text": body, "metadata": {}} for key, _, title, body in DOCUMENTS]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))


def write_tsv(folder):
    (folder / "docs.tsv").write_text("".join("\t".join(row) + "\n" for row in DOCUMENTS))


def write_csv(folder):
    (folder / "docs.csv").write_text("doc_id,url,title,text\n" + "".join(",".join(row) + "\n" for row in DOCUMENTS))


def write_parquet(folder):
    polars = pytest.importorskip("polars")
    columns = dict(zip(("docno", "url", "title", "text"), map(list, zip(*DOCUMENTS, strict=True)), strict=True))
    polars.DataFrame(columns).write_parquet(folder / "docs.parquet")


def dataset_of(folder, write=write_tsv, collection=""):
    folder.mkdir(exist_ok=True)
    write(folder)
    (folder / "queries.tsv").write_text("q1\totters\n")
    (folder / "qrels").write_text("q1 0 D1 1\n")
    if collection:
        (folder / "collection.toml").write_text(collection)
    return open_dataset(str(folder), folder / "cache")


@pytest.mark.parametrize(
    ("write", "body"),
    [(write_jsonl, "body"), (write_beir, "text"), (write_tsv, "text"), (write_csv, "text"), (write_parquet, "text")],
)
def test_a_template_writes_the_text_from_the_fields_of_any_format(tmp_path, write, body):
    plain = dataset_of(tmp_path / "data", write)
    assert plain.documents.texts(["D1", "D2"]) == ["Otters They sleep afloat.", "A page without a title."]
    written = with_template(plain, f"{{title}}. {{{body}}}")
    assert written.documents.texts(["D1", "D2"]) == ["Otters. They sleep afloat.", ". A page without a title."]
    assert [key for key, _ in written.documents] == ["D1", "D2"]
    assert titles_of(plain)(["D2", "D1"]) == ["", "Otters"]
    assert len({plain.fingerprint(), written.fingerprint()}) == 2
    assert len({plain.documents.fingerprint(), written.documents.fingerprint()}) == 2
    assert with_template(plain, "") is plain


def test_documents_of_the_shape_of_trec_disks_have_their_tags_as_fields(tmp_path):
    dataset = dataset_of(tmp_path / "data", lambda folder: (folder / "docs.trec").write_text(ROBUST))
    assert dataset.documents.texts(["FT911-1"]) == ["FT 14 MAY 91 / Otters They sleep afloat & eat."]
    assert set(dataset.field_reader.fields()) == {"title", "text", "date", "headline"}
    written = with_template(dataset, "{date}: {headline} | {text}")
    assert written.documents.texts(["FT911-1"]) == ["910514: FT 14 MAY 91 / Otters | They sleep afloat & eat."]


def test_a_large_file_is_read_by_the_template_into_a_copy_of_its_own(tmp_path, monkeypatch):
    small = with_template(dataset_of(tmp_path / "small"), "{url} {text}")
    monkeypatch.setattr(local_folders, "is_large", lambda _: True)
    large = with_template(dataset_of(tmp_path / "large"), "{url} {text}")
    assert list(large.documents) == list(small.documents)
    assert "D2" in large.documents
    assert len(large.documents) == 2
    assert large.documents.fingerprint() == small.documents.fingerprint()
    assert large.documents.fingerprint() != with_template(large, "{text}").documents.fingerprint()


def test_a_folder_may_declare_its_template_and_a_recipe_replace_it(tmp_path):
    declared = dataset_of(tmp_path / "data", collection='document_template = "{title}: {text}"\n')
    assert declared.documents.text("D1") == "Otters: They sleep afloat."
    assert any("{title}: {text}" in note for note in declared.decisions())
    assert with_template(declared, "{url}").documents.text("D1") == "http://a.example"
    with refused(UsageError, "document-field-unknown", "headline", "collection.toml", "url", "title", "text"):
        dataset_of(tmp_path / "data", collection='document_template = "{headline}"\n')


def test_a_field_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    dataset = dataset_of(tmp_path / "data")
    with refused(UsageError, "document-field-unknown", "headline", "url", "title", "text", "data.document_template"):
        with_template(dataset, "{title} {headline}")
    (tmp_path / "bare").mkdir()
    bare = dataset_of(tmp_path / "bare", lambda folder: (folder / "docs.tsv").write_text("D1\ttext\n"))
    with refused(UsageError, "document-field-unknown", "title", "text"):
        titles_of(bare)


@pytest.mark.parametrize("text", ["{title", "plain text", "{}", "{title!r}", "{title:>3}", "{0.x}", "{a.b}"])
def test_a_malformed_template_is_refused(tmp_path, text):
    with refused(UsageError, "template-wrong", "data.document_template"):
        with_template(dataset_of(tmp_path / "data"), text)


def test_braces_that_are_doubled_stand_for_themselves(tmp_path):
    assert with_template(dataset_of(tmp_path / "data"), "{{{title}}}").documents.text("D1") == "{Otters}"


def test_the_template_writes_the_documents_of_each_set_of_a_mixture(tmp_path):
    dataset_of(tmp_path / "one")
    dataset_of(tmp_path / "two", write_beir)
    plain = open_dataset(f"{tmp_path}/one * 2 + {tmp_path}/two", tmp_path / "cache")
    written = with_template(plain, "{title}!")
    assert written.documents.texts(["2:D1", "1:D1"]) == ["Otters!", "Otters!"]
    assert written.fingerprint() != plain.fingerprint()
    assert written.weights == plain.weights
    assert all(member.documents.text("D1") == "Otters!" for member in written.members.values())
    assert titles_of(plain)(["2:D2", "1:D1"]) == ["", "Otters"]
    with refused(UsageError, "document-field-unknown", "url", f"{tmp_path}/two"):
        with_template(plain, "{url}")  # a field of the first set alone
