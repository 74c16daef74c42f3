"""The published files that cerank can import: names, addresses, checksums, sizes, licenses.

Checksums are md5 where their publisher or the field's tools state one; sizes are bytes. What is not stated is left
open, never guessed. Invariant: nothing here is fetched; `download` does that, and checks what it got.
"""

from __future__ import annotations

import msgspec

from cerank.registry import Registry

_HUB = "https://huggingface.co/datasets"
_MSMARCO = "https://msmarco.z22.web.core.windows.net/msmarcoranking"
_RD_HUB = f"{_HUB}/webis/rank-distillm/resolve/main"
_RD_ZENODO = "https://zenodo.org/records/15131907/files"
_RD_ZENODO_OLD = "https://zenodo.org/records/12528410/files"
_MS_LICENSE = "MS MARCO: non-commercial research (Microsoft's terms)"
_DRIVE = "Google Drive asks for a confirmation; open the address in a browser"


class PublishedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One published file."""

    name: str
    format: str  # name of the format in cerank; "" if cerank rejects the file
    file: str  # the publisher's name
    url: str
    md5: tuple[str, ...] = ()  # any of them will do: a publisher may have replaced the file
    size: int = 0  # bytes; 0: not stated
    license: str = "not stated"
    by_hand: str = ""  # why no program can download it; "" if cerank can
    note: str = ""


def _rank_distillm(name: str, file: str, md5: tuple[str, ...], **more: str) -> PublishedFile:
    note = more.get("note", "")
    url = f"{more.get('base', _RD_HUB)}/{file}"
    kind = more.get("format", "rank-distillm")
    return PublishedFile(name=name, format=kind, file=file, url=url, md5=md5, license=_MS_LICENSE, note=note)


_ALL = (
    PublishedFile(
        name="rankgpt-100k",
        format="rankgpt",
        file="marco-train-100k.jsonl",
        url="https://drive.google.com/file/d/1OgF4rj89FWSr7pl1c7Hu4x0oQYIMwhik/view",
        license=_MS_LICENSE,
        by_hand=_DRIVE,
        note="100,000 queries with BM25's top 20; import it with rankgpt-100k-permutations",
    ),
    PublishedFile(
        name="rankgpt-100k-permutations",
        format="rankgpt",
        file="marco-train-100k-gpt3.5.json",
        url="https://drive.google.com/file/d/1z327WOKr70rC4UfOlQVBQnuLxChi_uPs/view",
        by_hand=_DRIVE,
        note="GPT-3.5's permutations of them, 9,301 of which are none",
    ),
    PublishedFile(
        name="rankgpt-10k",
        format="rankgpt",
        file="marco-train-10k.jsonl",
        url="https://drive.google.com/file/d/1G3MpQ5a4KgUS13JJZFE9aQvCbQfgSQzj/view",
        license=_MS_LICENSE,
        by_hand=_DRIVE,
    ),
    PublishedFile(
        name="rankgpt-10k-permutations",
        format="rankgpt",
        file="marco-train-10k-gpt3.5.json",
        url="https://drive.google.com/file/d/1i7ckK7kN7BAqq5g7xAd0dLv3cTYYiclA/view",
        by_hand=_DRIVE,
    ),
    _rank_distillm(
        "rank-distillm-rankzephyr",
        "__rankzephyr-colbert-10000-sampled-100__msmarco-passage-train-judged.parquet",
        ("38f69a3c8a5ed21c639e882a6c2eff7c", "02a245c712b4ea1804d0cb504005c0e2"),
        note="RankZephyr over ColBERTv2's top 100 of 10,000 queries; published twice",
    ),
    _rank_distillm(
        "rank-distillm-set-encoder",
        "__set-encoder-colbert-all-100__msmarco-passage-train-judged.parquet",
        ("a47206da7dc551e3ebd4e5b6866be78a",),
        note="Set-Encoder over the top 100 of all queries",
    ),
    _rank_distillm(
        "rank-distillm-monoelectra",
        "__monoelectra-colbert-all-100__msmarco-passage-train-judged.parquet",
        ("6561f33476a6c8408737f38ea85c848f",),
        note="monoELECTRA over the top 100 of all queries",
    ),
    _rank_distillm(
        "rank-distillm-colbert",
        "__colbert__msmarco-passage-train-judged.parquet",
        ("1e927d52af085516bf5a3de2865809d5",),
        format="colbertv2-run",
        note="ColBERTv2's top 500 of all queries, the first stage's negatives",
    ),
    _rank_distillm(
        "rank-distillm-rankzephyr-run",
        "__rankzephyr-colbert-10000-sampled-100__msmarco-passage-train-judged.run",
        ("49f8dbf2c1ee7a2ca1fe517eda528af6",),
        base=_RD_ZENODO,
        note="the same as a TREC run (Zenodo 15131907)",
    ),
    _rank_distillm(
        "rank-distillm-set-encoder-run",
        "__set-encoder-colbert__msmarco-passage-train-judged.run.gz",
        ("1f069d0daa9842a54a858cc660149e1a",),
        base=_RD_ZENODO,
        note="a TREC run (Zenodo 15131907)",
    ),
    _rank_distillm(
        "rank-distillm-rankzephyr-bm25-run",
        "__rankzephyr-bm25-10000-sampled-100__msmarco-passage-train-judged.run",
        ("05e3137ea3526671e1565cc90f9a2c8a",),
        base=_RD_ZENODO_OLD,
        note="RankZephyr over BM25's top 100 of 10,000 queries (Zenodo 12528410)",
    ),
    _rank_distillm(
        "colbertv2-run",
        "__colbert__msmarco-passage-train-judged.run",
        ("6ed152027f7270f32fcbfaaa6def951e",),
        base=_RD_ZENODO_OLD,
        format="colbertv2-run",
        note="251,469,500 rows (Zenodo 12528410; the paper took it from 10952882)",
    ),
    _rank_distillm(
        "bm25-train-run",
        "__bm25__msmarco-passage-train-judged.run",
        ("835372b2ab4d20acf10addeae526c559",),
        base=_RD_ZENODO_OLD,
        format="run",
        note="BM25's top 500 of all queries (Zenodo 12528410)",
    ),
    PublishedFile(
        name="sbert-hard-negatives",
        format="sbert-hard-negatives",
        file="msmarco-hard-negatives.jsonl.gz",
        url="https://sbert.net/datasets/msmarco-hard-negatives.jsonl.gz",
        md5=("ecf8cafb10197fd7adf4f68aabd15d84",),
        license=_MS_LICENSE,
        note="with cross-encoder scores",
    ),
    PublishedFile(
        name="sbert-hard-negatives-ids",
        format="sbert-hard-negatives",
        file="msmarco-hard-negatives.jsonl.gz",
        url=f"{_HUB}/sentence-transformers/msmarco-hard-negatives/resolve/main/msmarco-hard-negatives.jsonl.gz",
        license=_MS_LICENSE,
        note="ids only",
    ),
    PublishedFile(
        name="sbert-scores",
        format="",
        file="cross-encoder-ms-marco-MiniLM-L-6-v2-scores.pkl.gz",
        url=f"{_HUB}/sentence-transformers/msmarco-hard-negatives/resolve/main/"
        "cross-encoder-ms-marco-MiniLM-L-6-v2-scores.pkl.gz",
        license=_MS_LICENSE,
        by_hand="it is a Python pickle, which can run any program when it is read; cerank opens none. "
        "sbert-hard-negatives has scores of the same model in JSON",
        note="`cerank data import run FILE` says how to turn it into a TREC run",
    ),
    PublishedFile(
        name="msmarco-id-triples",
        format="msmarco-id-triples",
        file="qidpidtriples.train.full.2.tsv.gz",
        url=f"{_MSMARCO}/qidpidtriples.train.full.2.tsv.gz",
        md5=("219083e80a0a751c08b968c2f31a4e0b",),
        size=1_841_693_309,
        license=_MS_LICENSE,
        note="397,768,673 triples",
    ),
    PublishedFile(
        name="msmarco-id-triples-1",
        format="msmarco-id-triples",
        file="qidpidtriples.train.full.tsv.gz",
        url=f"{_MSMARCO}/qidpidtriples.train.full.tsv.gz",
        md5=("215a5204288820672f5e9451d9e202c5",),
        size=2_633_557_579,
        license=_MS_LICENSE,
        note="their first version",
    ),
    PublishedFile(
        name="msmarco-text-triples",
        format="msmarco-text-triples",
        file="triples.train.small.tar.gz",
        url=f"{_MSMARCO}/triples.train.small.tar.gz",
        md5=("c13bf99ff23ca691105ad12eab837f84",),
        size=7_930_881_353,
        license=_MS_LICENSE,
        note="39,780,811 triples, 27 GB of text",
    ),
    PublishedFile(
        name="ensemble-scores",
        format="ensemble-scores",
        file="bert_cat_ensemble_msmarcopassage_train_scores_ids.tsv",
        url="https://zenodo.org/record/4068216/files/bert_cat_ensemble_msmarcopassage_train_scores_ids.tsv",
        md5=("4d99696386f96a7f1631076bcc53ac3c",),
        license=_MS_LICENSE,
        note="the mean of three teachers (T2) over the small triples",
    ),
    PublishedFile(
        name="bert-scores",
        format="ensemble-scores",
        file="bertbase_cat_msmarcopassage_train_scores_ids.tsv",
        url="https://zenodo.org/record/4068216/files/bertbase_cat_msmarcopassage_train_scores_ids.tsv",
        md5=("a2575af08a19b47c2041e67c9efcd917",),
        license=_MS_LICENSE,
        note="BERT-base alone (T1) over the small triples",
    ),
    PublishedFile(
        name="tevatron-msmarco",
        format="tevatron",
        file="train.jsonl.gz",
        url=f"{_HUB}/Tevatron/msmarco-passage/resolve/main/train.jsonl.gz",
        license=_MS_LICENSE,
    ),
)

PUBLISHED_FILES: Registry[PublishedFile] = Registry("published file")
for _entry in _ALL:
    PUBLISHED_FILES.add(_entry.name)(_entry)
