"""Upload of a folder to the Hub in one commit; a failed upload leaves nothing behind."""

from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.utils import validate_repo_id
from tqdm import tqdm

# files of an earlier version that a new one must not leave behind; all else that a repository holds stays
REPLACED = ("*_pianobind.py", "*.safetensors", "*.safetensors.index.json", ".eval_results/*", "data/*.parquet")


def push_folder(
    folder: Path,
    repo_id: str,
    repo_type: str = "model",
    private: bool = False,
    revision: str | None = None,
    message: str = "Publish with PianoBind",
) -> str:
    """Uploads a folder in a single commit; creates the repository and the branch if missing.

    Args:
        repo_type (`str`): "model", "dataset" or "space" (of gradio).
        private (`bool`): of a new repository; an existing one stays as it is.
        revision (`str`, *optional*): the branch; "main" by default.
    Returns:
        The address of the commit.
    Raises:
        RuntimeError: the Hub refuses something. A repository or branch that this call made is deleted again; one that
            was there before is as it was. The message says which.
    """
    api = HfApi()
    target = {"repo_id": repo_id, "repo_type": repo_type}
    made = _Made(api, target, revision)
    try:
        if not api.repo_exists(**target):
            sdk = {"space_sdk": "gradio"} if repo_type == "space" else {}
            api.create_repo(**target, private=private, **sdk)
            made.repository = True
        if revision and revision not in {branch.name for branch in api.list_repo_refs(**target).branches}:
            api.create_branch(**target, branch=revision)
            made.branch = True
        made.before = api.repo_info(**target, revision=revision).sha
        # `upload_folder` may split a folder into several commits; `create_commit` never does
        commit = api.create_commit(
            **target,
            revision=revision,
            operations=[*_deletions(api, target, revision, folder), *_additions(folder)],
            commit_message=message,
        )
    except BaseException as error:  # an interrupt leaves no half repository either
        left = made.undo()
        if not isinstance(error, (HTTPError, OSError, RuntimeError, ValueError)):
            tqdm.write(f"publish: {repo_id}: interrupted; {left}.")
            raise
        cause = error if isinstance(error, HfHubHTTPError) else error.__cause__ or error
        reason = " ".join(str(cause).split())
        raise RuntimeError(
            f"{repo_id}: the upload failed ({reason}); {left}. `hf auth whoami` says whether you are logged in with a "
            "token that may write there."
        ) from error
    return commit.commit_url


class _Made:
    """Repository and branch that an upload has created, to be deleted if it fails."""

    def __init__(self, api: HfApi, target: dict[str, str], revision: str | None):
        self.api, self.target, self.revision = api, target, revision
        self.repository = self.branch = False
        self.before = None

    def undo(self) -> str:
        """Deletes what was created unless our commit reached it; returns a description of the Hub's state."""
        try:
            if self.before and self.api.repo_info(**self.target, revision=self.revision).sha != self.before:
                return "the commit reached the Hub all the same"  # only its answer was lost
            if self.repository:
                self.api.delete_repo(**self.target)
                return "the repository made for it is deleted again"
            if self.branch:
                self.api.delete_branch(**self.target, branch=self.revision)
                return f"the branch {self.revision} made for it is deleted again"
        except (HTTPError, OSError) as error:
            return f"what is on the Hub could not be told or deleted ({' '.join(str(error).split())}): look there"
        return "nothing on the Hub has changed"


def _additions(folder: Path) -> list[CommitOperationAdd]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [CommitOperationAdd(path.relative_to(folder).as_posix(), str(path)) for path in files]


def _deletions(api: HfApi, target: dict[str, str], revision: str | None, folder: Path) -> list[CommitOperationDelete]:
    stale = (name for name in api.list_repo_files(**target, revision=revision) if not (folder / name).exists())
    return [CommitOperationDelete(name) for name in stale if any(fnmatch(name, pattern) for pattern in REPLACED)]


def check_repo_id(repo_id: str) -> None:
    """Raises ValueError unless a name is a valid OWNER/NAME."""
    validate_repo_id(repo_id)
    if repo_id.count("/") != 1:
        raise ValueError(f"--repo-id is {repo_id!r}; it must be OWNER/NAME.")


def check_on_hub(base: str) -> None:
    """Raises ValueError if an adapter's base is not on the Hub."""
    if not HfApi().repo_exists(base):
        raise ValueError(f"{base} is not on the Hub; publish it first, then say `--base-model OWNER/NAME`.")


__all__ = ["check_on_hub", "check_repo_id", "push_folder"]
