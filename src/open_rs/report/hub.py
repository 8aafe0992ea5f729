"""Handing a finished directory to the Hub, only when a person asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from open_rs.types import UserError


def push(directory: Path, repo_id: str, kind: Literal["model", "dataset"], private: bool) -> str:
    """Upload a directory, creating the repository where it is missing; returns its address.

    Raises UserError without a login, without the network, and for a repository that is not yours.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    api = HfApi()
    try:
        address = api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, repo_type=kind, folder_path=directory)
    except LocalTokenNotFoundError as error:
        raise UserError(f"--push {repo_id}: not logged in; run `hf auth login` first") from error
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"--push {repo_id}: the Hub refused ({reason}); {directory} is complete, push it again"
        ) from error
    return str(address)
