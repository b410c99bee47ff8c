"""Upload files as one commit to a repository on the Hugging Face Hub, which is private unless the config says otherwise."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import TypeVar

from sao.base.command import InputError, log

from huggingface_hub import CommitOperationAdd, HfApi, ModelInfo, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

from sao.hub.fetch import ANSWER_TIMEOUT, PASSING, persist, said, without_token

Result = TypeVar("Result")
TOKEN_STEPS = (
    "make one with write access at https://huggingface.co/settings/tokens, then log in with `hf auth login` or set "
    "HF_TOKEN"
)
TRIES = 3


def check(repo: str, private: bool) -> bool:
    """Whether the repository exists. Raises InputError if an upload could not succeed or is not allowed."""
    if not get_token():
        raise InputError(f"{repo}: there is no token to publish with: {TOKEN_STEPS}")
    info = persist(lambda: _info(repo), repo, partial(_explain, repo), tries=2)
    user = persist(HfApi().whoami, repo, partial(_explain, repo), TRIES)
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise InputError(f"{repo}: the token of {user['name']} can only read: {TOKEN_STEPS}")
    if info:
        _check_visibility(repo, info, private)
    return info is not None


def create(repo: str, private: bool) -> None:
    """Make the repository. Raises InputError if it is then public but should be private."""
    persist(lambda: HfApi().create_repo(repo, private=private, exist_ok=True), repo, partial(_explain, repo), TRIES)
    info = persist(lambda: _info(repo), repo, partial(_explain, repo), TRIES)
    if info is None:
        raise InputError(f"{repo}: was made, but the token cannot read it: give the token read access too")
    _check_visibility(repo, info, private)
    log.info("%s: made a %s repository", repo, "private" if info.private else "public")


def commit(repo: str, files: dict[str, Path], message: str) -> str:
    """Upload files, by their names in the repository, in one commit, and return its id. Without a difference there is none.

    After a temporary failure it tries again, and sends only the files that the Hub does not have yet.
    """

    def once() -> str:
        # New objects for each attempt, because the client stores the Hub's answers in them.
        operations = [CommitOperationAdd(name, path) for name, path in files.items()]
        try:
            return HfApi().create_commit(repo, operations, commit_message=message).oid
        except json.JSONDecodeError:  # the client reads the answer before its status
            raise OSError("its answer is not JSON") from None
        except RuntimeError as error:  # wraps the error that broke off a transfer, or is one of Xet
            raise (error.__cause__ or OSError(str(error))) from None

    return persist(once, repo, partial(_explain, repo), TRIES)


def address(repo: str, commit_id: str) -> str:
    """The page of a repository at a commit."""
    return f"{constants.ENDPOINT}/{repo}/tree/{commit_id}"


def _info(repo: str) -> ModelInfo | None:
    timeout = constants.HF_HUB_ETAG_TIMEOUT if "HF_HUB_ETAG_TIMEOUT" in os.environ else ANSWER_TIMEOUT
    try:
        return HfApi().model_info(repo, timeout=timeout)
    except RepositoryNotFoundError:
        return None


def _check_visibility(repo: str, info: ModelInfo, private: bool) -> None:
    if private and not info.private:
        raise InputError(
            f"{repo}: is public, and the config asks for a private repository: nothing was uploaded; make it private at "
            f"{constants.ENDPOINT}/{repo}/settings, name another, or set publish.private to false"
        )
    if info.private and not private:
        log.warning("warning: %s is private and stays so: %s/%s/settings", repo, constants.ENDPOINT, repo)


def _explain(repo: str, error: Exception) -> InputError:
    """The error for a repository that cannot be published to."""
    if isinstance(error, OfflineModeIsEnabled):
        return InputError(f"{repo}: cannot be published: HF_HUB_OFFLINE is set and turns the network off; unset it")
    if isinstance(error, HfHubHTTPError):
        status, words = error.response.status_code, " ".join((error.server_message or "").split())
        why = without_token(f"{said(error)}: {words}" if words else said(error))
        if status == 401:
            return InputError(f"{repo}: the Hub does not accept the token ({why}): {TOKEN_STEPS}")
        if status in (403, 404):
            return InputError(
                f"{repo}: the token may not write there ({why}): check publish.repo in the config; if it is right, "
                f"{TOKEN_STEPS}"
            )
        advice = "try again later" if status in PASSING else "check publish.repo in the config, and HF_ENDPOINT"
        return InputError(f"{repo}: cannot be published ({why}): {advice}")
    if isinstance(error, json.JSONDecodeError):
        return InputError(f"{repo}: cannot be published: the answer of {constants.ENDPOINT} is not JSON: is it a Hub?")
    if isinstance(error, ValueError):  # the name of the repository, the front matter of the card
        return InputError(f"{repo}: cannot be published: {without_token(' '.join(str(error).split()))}")
    why = f"{repo}: cannot be published at {constants.ENDPOINT} ({said(error)})"
    if "xet-write-token" in why:
        return InputError(f"{why}: if this Hub does not support Xet, set HF_HUB_DISABLE_XET=1")
    return InputError(f"{why}: is there a network? Run again: uploaded files are kept")
