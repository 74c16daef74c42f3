from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cerank.datasets import irds
from cerank.datasets.document_templates import parse_template
from tests.refusals import refused

# In a process of its own: ir_datasets settles its home when it is first imported.
_LOOK = """
import sys
from pathlib import Path
from cerank.datasets import open_datasets as datasets; from cerank.retrieval import first_stage
from cerank.errors import CerankError
cache = Path(sys.argv[1])
for name in ("vaswani", "cranfield"):
    told = datasets.describe(name, cache)
    print(name, told.documents, told.queries, told.judgments, told.runs)
vaswani = datasets.open_dataset("vaswani[:10]", cache)
print(vaswani.documents.text("1").split()[:3], "1" in vaswani.documents, "zz" in vaswani.documents)
print(vaswani.documents.texts(["2", "1"])[1].split()[:3])
print(sum(1 for _ in vaswani.documents))
print(len(first_stage.candidates(vaswani, "bm25", 5, cache)))
cranfield = datasets.open_dataset("cranfield", cache)
print(cranfield.documents.text("1").split()[:4])
for name in ("vaswanni", "no/such", "msmarco-passage/trec-dl-2020/judged"):
    try:
        datasets.open_dataset(name, cache)
    except CerankError as error:
        print(type(error).__name__, error)
try:
    vaswani.documents.text("zz")
except CerankError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def home(shared: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "home"
    shutil.copytree(shared / "ir-datasets-home", copy)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return copy


@pytest.mark.thorough
def test_catalog_ids_open_offline_quietly_and_fail_with_advice(home: Path, tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"  # the discard port: every download fails at once
    environment = {**os.environ, "IR_DATASETS_HOME": str(home), "IR_DATASETS_DL_TRIES": "1"}
    environment |= {
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
        "https_proxy": nowhere,
        "NO_PROXY": "",
        "no_proxy": "",
    }
    done = subprocess.run(
        [sys.executable, "-c", _LOOK, str(tmp_path / "cache")],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[:7] == [
        "vaswani 11429 93 2083 ()",
        "cranfield 1400 225 1837 ()",
        "['compact', 'memories', 'have'] True False",
        "['compact', 'memories', 'have']",
        "11429",
        "10",
        "['experimental', 'investigation', 'of', 'the']",
    ]
    assert lines[7] == "UsageError no dataset is called 'vaswanni' (did you mean 'vaswani'?)"
    assert lines[8].startswith("UsageError no dataset is called 'no/such' (")
    assert lines[9].startswith("MissingError msmarco-passage/trec-dl-2020/judged: not here, and could not be fetched")
    assert f"copy {home}/msmarco-passage" in lines[9]
    assert lines[10].startswith("MissingError no document 'zz' in dataset vaswani")


def test_the_catalog_is_searched_by_words() -> None:
    from cerank.datasets.open_datasets import search

    names = [entry.name for entry in search("TREC-DL 2020 passage")]
    assert "msmarco-passage/trec-dl-2020/judged" in names
    assert all("2020" in name for name in names)


def test_a_catalog_id_without_queries_cannot_be_ranked() -> None:
    from cerank.datasets.open_datasets import open_dataset
    from cerank.errors import UsageError

    with refused(UsageError, "collection-incomplete"):
        open_dataset("msmarco-passage", Path())


def test_neither_datasets_nor_first_stages_import_ir_datasets_or_bm25s_by_themselves() -> None:
    look = (
        "import sys, cerank.datasets.open_datasets, cerank.retrieval.first_stage, cerank.retrieval.teachers; "
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert not {"ir_datasets", "bm25s", "numpy", "torch", "scipy"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("module", "kind", "values", "fields"),
    [
        (
            "ir_datasets.datasets.msmarco_document",
            "MsMarcoDocument",
            ("u", "Otters", "Afloat."),
            ("url", "title", "body"),
        ),
        ("ir_datasets.formats", "TrecParsedDoc", ("Otters", "Afloat.", b"<DOC>"), ("title", "body")),
        ("ir_datasets.datasets.beir", "BeirDoc", ("Afloat.", "Otters", {}), ("text", "title")),
    ],
)
def test_documents_of_the_catalog_are_written_from_their_own_fields(module, kind, values, fields) -> None:
    documents = getattr(importlib.import_module(module), kind)
    record = documents("D1", *values)

    class Source:
        docs_cls = staticmethod(lambda: documents)
        docs_iter = staticmethod(lambda: iter([record]))
        docs_store = staticmethod(lambda: SimpleNamespace(get_many=lambda ids: dict.fromkeys(ids, record)))
        metadata = staticmethod(lambda: {"docs": {"count": 1}})

    reader = irds.CatalogFields(Source, "a dataset", "ab" * 32)
    assert reader.fields() == fields
    body = next(name for name in fields if name in {"body", "text"})
    written = reader.documents(parse_template(f"{{title}}. {{{body}}}"))
    assert written.text("D1") == "Otters. Afloat."
    assert list(written) == [("D1", "Otters. Afloat.")]
    assert written.fingerprint() != reader.documents(parse_template("{title}")).fingerprint()
