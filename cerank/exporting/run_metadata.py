"""The header of a TREC run by ir_metadata (https://www.ir-metadata.org): comment lines with YAML, by PRIMAD's parts.

Platform, research goal, implementation, method, actor, data, and the resources of tirex-tracker's extension.
Invariant: nothing is in it that was not measured, given, or read from what was used; the home folder is written ~, and
an address without the name and password in it.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

import cerank
from cerank.errors import UsageError
from cerank.exporting.resource_meter import Resources
from cerank.machine.devices import cpu_model, detect_gpus, fits, physical_cores, visible_gpus
from cerank.text.safe_text import counted, shown

SCHEMA = 0.1  # ir_metadata's present version
START, END = "# ir_metadata.start", "# ir_metadata.end"
_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")
_LONGEST = 2000  # characters of a name or goal that is given


class MetadataRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What only the user knows; "" is left out."""

    command: Sequence[str]  # the program's words, as it was called
    actor: str = ""  # the name of the user
    team: str = ""
    goal: str = ""  # what the run is for, in a sentence


class RecordedMachine(msgspec.Struct, frozen=True):
    """Another machine, or another time, by what a run recorded there."""

    cpu: str
    versions: Mapping[str, str]  # of Python, cerank and libraries


class RerankedRun(msgspec.Struct, frozen=True, kw_only=True):
    """What was re-ranked, with what."""

    tag: str
    model: str  # as it was named
    model_sha256: str  # of the model's files; "" for a server
    precision: str  # "" for a server
    device: str  # "" for a server
    threads: int
    first_stage: str  # as it was named
    first_stage_sha256: str  # of its file; "" for the built-in BM25
    depth: int
    dataset: str  # as it was named
    ir_datasets: str  # its id in ir_datasets; "" for others
    documents_sha256: str  # of the collection, whatever the model read of its documents
    queries: int
    pairs: int  # of queries and documents
    pairs_scored: int  # others had been scored before, and came from the cache
    dataset_sha256: str = ""  # of texts and judgments together, where that is what was recorded
    document_template: str = ""  # text of a document from its fields, as the model read it; "" for the collection's own
    machine: RecordedMachine | None = None  # that scored; None for this one, now
    training: Mapping[str, object] = {}  # how the model was trained, where a run of the lab did


def check_request(request: MetadataRequest) -> None:
    """Check what the user gives, before anything is scored.

    Raises:
        UsageError: a text with control characters, or far too long.
    """
    for option, text in (("--actor", request.actor), ("--team", request.team), ("--goal", request.goal)):
        if len(text) > _LONGEST or not all(sign.isprintable() for sign in text):
            what = f"'{shown(text, 60)}' has control characters or more than {_LONGEST} characters"
            raise UsageError(what, where=option, hint="one line of text", code="text-not-plain")


def header(request: MetadataRequest, run: RerankedRun, resources: Resources | None) -> list[str]:
    """Return the header's lines, each a comment.

    Args:
        request: what the user gives.
        run: what was re-ranked.
        resources: what it took; None where this process did not do all of it.
    """
    from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]  # imported there, and not in its __all__

    values: dict[str, Any] = {
        "schema-version": SCHEMA,
        "run-version": 1.0,
        "tag": run.tag,
        "platform": _platform(run.device) if run.machine is None else _recorded_platform(run.machine),
        "research goal": {"description": request.goal},
        "implementation": {
            "executable": {"cmd": shlex.join(_public(word) for word in request.command)},
            "source": {"lang": ["python"]},
        },
        "method": _method(run),
        "actor": {"name": request.actor, "team": request.team},
        "data": {
            "test collection": {
                "name": _public(run.dataset),
                "ir_datasets": f"https://ir-datasets.com/{run.ir_datasets.split('/')[0]}" if run.ir_datasets else "",
                "queries": run.queries,
                "documents sha256": run.documents_sha256,
                "sha256": run.dataset_sha256,
            }
        },
        "resources": _resources(resources, run) if resources is not None else {},
    }
    text = yaml_dump(_without_empty(values), sort_keys=False, width=float("inf"))
    return [START, *(f"# {line}" for line in text.rstrip("\n").split("\n")), END]


def notes(run: RerankedRun, resources: Resources | None) -> tuple[str, ...]:
    """Return sentences on what the header does not hold, and why."""
    if resources is None:
        return ("time, memory and energy are not in the metadata: other commands or processes scored the pairs",)
    known = run.pairs - run.pairs_scored
    if not known:
        return resources.notes
    what = f"{known} of {counted(run.pairs, 'pair')} were scored before and came from the cache"
    return (f"{what}; time and energy in the metadata are without them", *resources.notes)


def _platform(device: str) -> dict[str, Any]:
    seen = visible_gpus(detect_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES")) if device.startswith("cuda") else []
    gpus = [gpu for gpu in seen if fits(device, gpu)]
    return {
        "hardware": {
            "cpu": {
                "model": cpu_model(),
                "architecture": platform.machine(),
                "operation mode": platform.architecture()[0].replace("bit", "-bit"),
                "number of cores": physical_cores(),
            },
            "gpu": {"model": gpus[0].name if gpus else ""},
            "ram": _ram(),
        },
        "operating system": {"kernel": f"{platform.system()} {platform.release()}", "distribution": _distribution()},
        "software": {
            "libraries": {"python": [f"python=={platform.python_version()}", *_versions()]},
            "retrieval toolkit": [f"cerank=={cerank.__version__}"],
        },
    }


def _recorded_platform(machine: RecordedMachine) -> dict[str, Any]:
    known = {name: machine.versions[name] for name in ("python", *_LIBRARIES) if name in machine.versions}
    version = machine.versions.get("cerank", "")
    return {
        "hardware": {"cpu": {"model": machine.cpu}},
        "software": {
            "libraries": {"python": [f"{name}=={number}" for name, number in known.items()]},
            "retrieval toolkit": [f"cerank=={version}"] if version else [],
        },
    }


def _method(run: RerankedRun) -> dict[str, Any]:
    first = {
        "name": "first stage",
        "method": _public(run.first_stage),
        "sha256": run.first_stage_sha256,
        "rerankCutoff": run.depth,
    }
    reranker = {
        "name": "re-ranker",
        "method": _public(run.model),
        "sha256": run.model_sha256,
        "precision": run.precision,
        "device": run.device,
        "threads": run.threads or "",
        "document template": run.document_template,
        "reranks": "first stage",
        "training": dict(run.training),
    }
    return {"automatic": True, "score ties": "order of the first stage", "retrieval": [first, reranker]}


def _resources(resources: Resources, run: RerankedRun) -> dict[str, Any]:
    def joules(value: float | None) -> str:
        return "" if value is None else f"{value:.0f} J"

    def milliseconds(value: float | None) -> str:
        return "" if value is None else f"{value * 1000:.0f} ms"

    return {
        "pairs": {"ranked": run.pairs, "scored": run.pairs_scored},
        "runtime": {
            "wallclock": milliseconds(resources.seconds),
            "user": milliseconds(resources.user),
            "system": milliseconds(resources.system),
        },
        "ram": {
            "used process": {"max": "" if resources.memory is None else f"{resources.memory // 1024} KB"},
        },
        "cpu": {"energy system": joules(resources.cpu_joules)},
        "gpu": {
            "vram used process": {"max": "" if resources.gpu_memory is None else f"{resources.gpu_memory >> 20} MB"},
            "energy system": joules(resources.gpu_joules),
        },
    }


def _without_empty(value: Any) -> Any:
    """Return the value without the parts of mappings that hold nothing."""
    if not isinstance(value, Mapping):
        return [_without_empty(item) for item in value] if isinstance(value, list) else value
    filled = {key: _without_empty(item) for key, item in value.items()}
    return {key: item for key, item in filled.items() if item not in ("", {}, [])}


def _public(text: str) -> str:
    """Return a word of the command without what concerns nobody else: the home folder, and a password in an address."""
    if re.match(r"https?://", text):
        parts = urlsplit(text)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    text = re.sub(r"(https?://)[^/\s]*@", r"\1", text)
    return re.sub(rf"(^|[=:,]){re.escape(str(Path.home()))}(?=/|$)", r"\1~", text)


def _ram() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return ""
    return f"{size / (1 << 30):.0f} GB"


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:  # no Linux
        return platform.platform()


def _versions() -> list[str]:
    versions = []
    for name in _LIBRARIES:
        try:
            versions.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
