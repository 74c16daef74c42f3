"""The formats that `cerank data import` knows, by name.

Invariant: a format says everything that its reader needs to be told, so that the command line can list and run each
of them without knowing any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from cerank.importing.dataset_writer import DatasetWriter
from cerank.importing.formats import column_texts, hard_negatives, listwise, ranked_runs, rankgpt, triples, twolar
from cerank.registry import Registry

Reader = Callable[[Sequence[Path], DatasetWriter, str], None]
MSMARCO = "msmarco-passage/train/judged"


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """One format: its name, its content, and its reader."""

    name: str
    description: str  # what a row holds
    gives: str  # what the folder will have
    read: Reader
    run: str = ""  # the run's name where --name gives none; "" takes it from the file's
    collection: str = ""  # ir_datasets id with the texts, where the files have ids only


_ALL = (
    Format(
        name="rankgpt",
        description="JSONL of queries with BM25's top 20 and their texts, and a JSON list of permutations",
        gives="documents, queries, judgments, runs bm25 and rankgpt",
        read=rankgpt.read,
        run="rankgpt",
    ),
    Format(
        name="twolar",
        description="TWOLAR's parquet or JSONL: query_id, query, retrieved_passages [{docid, text, rank}], best first",
        gives="documents, queries, run twolar",
        read=twolar.read,
        run=twolar.RUN,
    ),
    Format(
        name="run",
        description="TREC runs (six columns) or parquet with query_id, doc_id, score and rank, over any collection",
        gives="a run a file",
        read=ranked_runs.read,
        collection=MSMARCO,
    ),
    Format(
        name="rank-distillm",
        description="Rank-DistiLLM's teachers over ColBERTv2's or BM25's top 100: TREC runs or parquet",
        gives="a run a file, such as rankzephyr-colbert-10000-sampled-100; judgments are the collection's",
        read=ranked_runs.read,
        collection=MSMARCO,
    ),
    Format(
        name="colbertv2-run",
        description="ColBERTv2's top 500 of 502,939 training queries: a TREC run or parquet of 251,469,500 rows; see "
        "--depth, and `cerank data ingest` for all of it",
        gives="the run colbertv2; judgments are the collection's",
        read=ranked_runs.read,
        run="colbertv2",
        collection=MSMARCO,
    ),
    Format(
        name="sbert-hard-negatives",
        description="JSONL of qid, pos, and neg by system (bm25 and 12 dense ones), with or without ce-score",
        gives="judgments, a run a system, and cross-encoder where there are scores",
        read=hard_negatives.read_mined,
        run=hard_negatives.CROSS_ENCODER,
        collection=MSMARCO,
    ),
    Format(
        name="rank-llm",
        description="JSONL of query {text, qid} and candidates [{docid, score, doc}]",
        gives="documents, queries, run rank-llm",
        read=listwise.read_rank_llm,
        run="rank-llm",
    ),
    Format(
        name="tirex",
        description="JSONL of qid, query, docno, text, rank, score: TIREx's and TIRA's re-ranking files",
        gives="documents, queries, run tirex",
        read=listwise.read_tirex,
        run="tirex",
    ),
    Format(
        name="flag-embedding",
        description="JSONL of query, pos, neg, and perhaps pos_scores and neg_scores",
        gives="documents, queries, judgments, run negatives, and teacher where there are scores",
        read=hard_negatives.read_flag,
        run=hard_negatives.TEACHER,
    ),
    Format(
        name="tevatron",
        description="JSONL of query_id, query, positive_passages and negative_passages with docid, title, text",
        gives="documents, queries, judgments, run negatives",
        read=hard_negatives.read_tevatron,
        run=hard_negatives.NEGATIVES,
    ),
    Format(
        name="tevatron-ids",
        description="Tevatron 2 and 3: query_id, positive_document_ids and negative_document_ids, over a collection",
        gives="judgments, run negatives",
        read=hard_negatives.read_tevatron_ids,
        run=hard_negatives.NEGATIVES,
        collection=MSMARCO,
    ),
    Format(
        name="sentence-transformers",
        description="columns anchor, positive, negative(_N), or query, passage, label or score: JSONL, parquet, folder",
        gives="documents, queries, judgments, run negatives, and teacher where there are scores",
        read=column_texts.read,
        run=column_texts.TEACHER,
    ),
    Format(
        name="colbert-triples",
        description="ColBERT's JSONL of [qid, positive pid, negative pid, ...], or [qid, [pid, score], ...]",
        gives="judgments, run negatives, and teacher where there are scores",
        read=triples.read_colbert,
        run="teacher",
        collection=MSMARCO,
    ),
    Format(
        name="msmarco-id-triples",
        description="TSV of qid, positive pid, negative pid",
        gives="judgments, run negatives",
        read=triples.read_ids,
        run=hard_negatives.NEGATIVES,
        collection=MSMARCO,
    ),
    Format(
        name="msmarco-text-triples",
        description="TSV of query, positive text, negative text",
        gives="documents, queries, judgments, run negatives",
        read=triples.read_texts,
        run=hard_negatives.NEGATIVES,
    ),
    Format(
        name="openmatch-triples",
        description="JSONL of query, doc_pos, doc_neg, all of them texts",
        gives="documents, queries, judgments, run negatives",
        read=triples.read_openmatch,
        run=hard_negatives.NEGATIVES,
    ),
    Format(
        name="ensemble-scores",
        description="Hofstätter's TSV of positive score, negative score, qid, positive pid, negative pid",
        gives="judgments, run ensemble with the teacher's scores",
        read=triples.read_scores,
        run="ensemble",
        collection=MSMARCO,
    ),
    Format(
        name="ensemble-scores-text",
        description="the same with the texts of query, positive and negative in place of their ids",
        gives="documents, queries, judgments, run ensemble with the teacher's scores",
        read=triples.read_scored_texts,
        run="ensemble",
    ),
)

FORMATS: Registry[Format] = Registry("format")
for _entry in _ALL:
    FORMATS.add(_entry.name)(_entry)
