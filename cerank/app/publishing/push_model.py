"""Upload an exported re-ranker to the Hugging Face hub, with its card and evaluation results."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from cerank.app.publishing.export_model import ExportRequest, ExportResult, export
from cerank.errors import MissingError, UsageError
from cerank.settings import Settings
from cerank.text.safe_text import shown


class PushRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A folder to upload to the hub, and the repository."""

    export: ExportRequest
    repository: str  # org/name
    private: bool = False  # of a repository that is made
    dry_run: bool = False  # write and check everything, and send nothing
    pull_request: bool = False  # propose the files to the repository's owner, in place of committing them


class PushResult(msgspec.Struct, frozen=True, kw_only=True):
    """The files that were uploaded, or would be without --dry-run."""

    exported: ExportResult
    card: str
    url: str = ""  # of the commit or pull request; "" for a dry run


def push(settings: Settings, request: PushRequest, progress: Callable[[str], None]) -> PushResult:
    """Export the model, check it, and upload its files in one commit.

    Args:
        settings: where the lab and caches are.
        request: what to upload, and to where.
        progress: called with what is done next.

    Raises:
        UsageError: the name is no repository's, or the format cannot hold the model.
        MissingError: the hub refuses, or cannot be reached; nothing was uploaded.
    """
    if not _is_repository(request.repository):
        what = f"'{shown(request.repository, 120)}' is not the name of a repository"
        raise UsageError(what, where="NAME", hint="such as my-organization/my-reranker", code="repository-name")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        exported = export(settings, request.export, folder, progress)
        readme = folder / "README.md"
        card = readme.read_text(encoding="utf8").replace('"this folder', f'"{request.repository}')
        readme.write_text(card, encoding="utf8")
        url = ""
        if not request.dry_run:
            progress(f"uploading to {request.repository}")
            url = _upload(folder, request)
    return PushResult(exported=exported, card=card, url=url)


def _is_repository(name: str) -> bool:
    """Return whether it is the name of a repository with its owner's, as the hub has them."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # it is, and says so nowhere

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1 and all(name.split("/"))


def _upload(folder: Path, request: PushRequest) -> str:
    """Upload the folder, and return the address of the commit or pull request."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError

    api = HfApi()
    try:
        if not request.pull_request:
            api.create_repo(request.repository, private=request.private or None, exist_ok=True)
        commit = api.upload_folder(
            repo_id=request.repository,
            folder_path=folder,
            commit_message="Upload a re-ranker fine-tuned with cerank",
            create_pr=request.pull_request,
        )
    except (HFValidationError, ValueError) as error:
        raise UsageError(f"the hub does not take it: {_reason(error)}", where=request.repository) from error
    except Exception as error:  # which client of HTTP raises is the library's affair, and changes with its release
        status = getattr(getattr(error, "response", None), "status_code", 0)
        is_token = status in {401, 403} or isinstance(error, LocalTokenNotFoundError)
        hint = "log in with `hf auth login`, or set HF_TOKEN to a token that may write" if is_token else ""
        if status == 404 and request.pull_request:
            hint = "a pull request needs a repository that exists"
        what = f"the hub does not take it: {_reason(error)}"
        code = "hub-refused" if status else "hub-unreachable"
        raise MissingError(what, where=request.repository, hint=hint, code=code) from error
    return str(commit.pr_url or commit.commit_url)


def _reason(error: Exception) -> str:
    return shown(next(iter(str(error).splitlines()), "") or type(error).__name__, 300)
