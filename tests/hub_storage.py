"""What the Hub of `hub_server.py` keeps of a repository."""

import hashlib
import json
from collections import namedtuple
from dataclasses import dataclass, field
from urllib.parse import unquote

File = namedtuple("File", "oid is_lfs")  # oid: SHA-256 for LFS, git's SHA-1 otherwise
Commit = namedtuple("Commit", "files parent message")  # files: path -> File


class HubError(Exception):
    """An answer other than success; `code` is what the clients look for in X-Error-Code."""

    def __init__(self, status, message, code=None):
        super().__init__(message)
        self.status, self.code = status, code


@dataclass
class Repository:
    """Commits by their id, and the branches and tags that point to them."""

    private: bool = False
    commits: dict = field(default_factory=dict)
    branches: dict = field(default_factory=dict)
    tags: dict = field(default_factory=dict)

    def resolve(self, revision) -> str:
        """Branch, tag or commit id -> commit id."""
        revision = unquote(revision)
        commit = self.branches.get(revision) or self.tags.get(revision) or (revision in self.commits and revision)
        if not commit:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def files(self, revision="main") -> dict:
        return self.commits[self.resolve(revision)].files

    def commit(self, branch, files, message) -> str:
        parent = self.branches.get(branch)
        name = hashlib.sha1(json.dumps([parent, message, sorted(files.items())]).encode()).hexdigest()
        self.commits[name] = Commit(files, parent, message)
        self.branches[branch] = name
        return name
