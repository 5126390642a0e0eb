"""Upload a model to the Hugging Face Hub."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurokern._check import check_choice, check_flag
from neurokern.checkpoint import CONFIG, read_json
from neurokern.hub.card import PLACE
from neurokern.hub.load import REPO_ID, hub_library, read_folder
from neurokern.hub.manifest import CARD, FILES, MANIFEST, SESSIONS
from neurokern.hub.save import save_pretrained
from neurokern.models import MtM

if TYPE_CHECKING:
    from neurokern.adapters.adapted import AdaptedModel

__all__ = ["push_to_hub"]


def push_to_hub(
    model: MtM | AdaptedModel | str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = True,
    sessions: str = "pseudonyms",
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a neurokern model",
    **saving: Any,
) -> str:
    """Upload a model, or a folder of :func:`save_pretrained`, to a repository of the Hub.

    Nothing is uploaded but the files that :func:`save_pretrained` writes, whatever else is in the folder. A
    card that does not state license and data is refused.

    Parameters
    ----------
    model : MtM, AdaptedModel or path
    repo_id : str
        "owner/name"; made where there is none.
    private : bool, default True
        Whether a repository that has to be made is seen by its owner alone: making one public is a step of
        its own.
    sessions : {"pseudonyms", "keep", "drop"}, default "pseudonyms"
        As in :func:`save_pretrained`, which keeps names by default; here they would leave the house. A folder
        was written already: one that keeps the names of its sessions is refused unless this is "keep".
    token : str, optional
        By default the one that ``hf auth login`` stored.
    revision : str, optional
        Branch to upload to.
    commit_message : str
    **saving
        ``card``, ``metrics``, ``alignment`` and ``base`` of :func:`save_pretrained`, for a model.

    Returns
    -------
    url : str
        Of the commit.

    Raises
    ------
    ImportError
        If huggingface_hub is not installed.
    ValueError
        If the name is no repository, the card is not complete, names of sessions would be published unasked,
        or a file was changed.
    """
    function = "push_to_hub"
    check_choice(function, "sessions", sessions, SESSIONS)
    check_flag(function, "private", private)
    if not isinstance(repo_id, str) or not REPO_ID.fullmatch(repo_id):
        raise ValueError(f"{function}: repo_id must be 'owner/name', got {repo_id!r}")
    api = hub_library().HfApi(token=token)
    if isinstance(model, (str, os.PathLike)):
        if saving:
            raise ValueError(f"{function}: a folder is uploaded as it is; got {sorted(saving)} as well")
        return _upload(api, Path(model), repo_id, private, sessions, revision, commit_message)
    with tempfile.TemporaryDirectory() as place:
        folder = save_pretrained(model, Path(place) / "model", sessions=sessions, **saving)
        return _upload(api, folder, repo_id, private, sessions, revision, commit_message)


def _upload(
    api: Any,
    folder: Path,
    repo_id: str,
    private: bool,
    sessions: str,
    revision: str | None,
    commit_message: str,
) -> str:
    held = read_folder(folder)
    held.card.check_complete()
    if held.sessions == "keep" and sessions != "keep" and _names_sessions(folder):
        raise ValueError(
            f"push_to_hub: {folder} holds the names of its sessions; write it with sessions='pseudonyms', or "
            "pass sessions='keep' here if they identify nobody"
        )
    if not (folder / CARD).is_file():
        raise FileNotFoundError(f"push_to_hub: {folder / CARD}, the card, is missing; save the model again")
    with tempfile.TemporaryDirectory() as place:
        leaving = Path(place) / "model"  # a copy: what else lies in the folder never comes near the upload
        leaving.mkdir()
        for name in (*FILES, MANIFEST, CARD):
            if (folder / name).is_file():
                shutil.copy(folder / name, leaving)
        text = (leaving / CARD).read_text(encoding="utf-8").replace(PLACE, repo_id)
        (leaving / CARD).write_text(text, encoding="utf-8")
        api.create_repo(repo_id, private=private, repo_type="model", exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=str(leaving),
            repo_type="model",
            revision=revision,
            commit_message=commit_message,
        )
    return str(getattr(commit, "commit_url", commit))


def _names_sessions(folder: Path) -> bool:
    config = read_json(folder / CONFIG)
    structure = config.get("structure")
    return bool(config.get("sessions") or (isinstance(structure, dict) and structure.get("session")))
