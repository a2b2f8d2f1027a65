"""A Hub on the loopback: enough of its HTTP interface for huggingface_hub, transformers, datasets, evaluate and peft.

Repositories live in memory. `HubServer.environment()` points a process here; the variables are read at import, so it
has to be a new process. Large files travel by LFS, or with `environment(xet=True)` by xet.

Endpoints (KIND is models, datasets or spaces; PREFIX is nothing, `datasets/` or `spaces/`):

    POST   /api/repos/create                      409 where it exists
    DELETE /api/repos/delete
    GET    /api/KIND/ID, /api/KIND/ID/revision/REV
    GET    /api/KIND/ID/refs, /commits/REV, /tree/REV[/FOLDER] (?recursive, ?expand)
    POST   /api/KIND/ID/paths-info/REV
    POST   /api/KIND/ID/preupload/REV             says which files go by LFS
    POST   /api/KIND/ID/commit/REV                ndjson: header, file, lfsFile, deletedFile, deletedFolder
    POST, DELETE /api/KIND/ID/branch/NAME, /tag/NAME
    POST   /PREFIX ID.git/info/lfs/objects/batch  basic transfer; PUT of the object, POST of its verification
    GET    /api/KIND/ID/xet-write-token/REV, /xet-read-token/REV    says where xet keeps content: see `hub_xet.py`
    GET, HEAD /PREFIX ID/resolve/REV/PATH         ETag, X-Repo-Commit; LFS files redirect to /objects/OID, with ranges,
                                                  and name their xet hash where they came by xet
    GET    /api/whoami-v2;  POST /api/validate-yaml

Not covered: xet's storage over HTTP (clients read and write a folder), multipart uploads by LFS, pull requests, lists,
searches, discussions, Spaces' runtime. Rights are simple: writing and private repositories need the token.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from .hub_storage import File, HubError, Repository
from .hub_xet import XetStorage

DATE = "2026-01-01T00:00:00.000Z"
LFS_SUFFIXES = (".safetensors", ".bin", ".parquet", ".arrow", ".zip")
ID = r"(?P<id>[^/]+/[^/]+?)"
API = rf"/api/(?P<kind>model|dataset|space)s/{ID}"
PREFIX = r"/(?:(?P<kind>dataset|space)s/)?"


class HubServer:
    """Starts with `with HubServer() as hub`; `hub.repositories[kind, id]` is what has been pushed.

    `hub.fail(method, part_of_path)` makes matching requests fail from then on, with `served=True` only after they were
    served, so that just the answer is lost; `hub.heal()` ends that.
    """

    token, user = "hf_local", "tester"

    def __init__(self):
        self.repositories, self.objects, self.failures, self.xet = {}, {}, [], XetStorage()
        self.asked = []  # paths of the requests that came
        self.lock = threading.RLock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        # another host, as on the real Hub: clients look no further than here for what they need to know of a file
        self.storage_url = f"http://localhost:{self.http.server_port}"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.http.shutdown()
        self.http.server_close()
        self.xet.close()

    def fail(self, method, part_of_path, status=400, served=False):
        # 400: clients repeat what failed with 403 or 500, for seconds
        self.failures.append((method, part_of_path, status, served))

    def heal(self):
        self.failures.clear()

    def read(self, kind, repo_id, path, revision="main") -> bytes:
        """Content of a pushed file."""
        return self.objects[self.repositories[kind, repo_id].files(revision)[path].oid]

    def store(self, content: bytes, is_lfs: bool) -> File:
        digest = (
            hashlib.sha256(content) if is_lfs else hashlib.sha1(b"blob %d\0" % len(content) + content)
        ).hexdigest()
        self.objects[digest] = content
        return File(digest, is_lfs)

    def environment(self, xet: bool = False) -> dict:
        """What a client process needs in its environment; `xet` is what clients do by default."""
        return {
            "HF_HUB_DISABLE_XET": str(int(not xet)),
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": self.token,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # datasets and evaluate count downloads at a server of their own
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self._answer("GET")

    def do_HEAD(self):
        self._answer("HEAD")

    def do_POST(self):
        self._answer("POST")

    def do_PUT(self):
        self._answer("PUT")

    def do_DELETE(self):
        self._answer("DELETE")

    def _answer(self, method):
        url = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        if len(self.body) < length:  # the client is gone
            self.close_connection = True
            return
        try:
            with self.hub.lock:
                self.hub.asked.append(url.path)
                self._fail(method, url.path, served=False)
                for methods, pattern, function in ROUTES:
                    if method in methods.split() and (match := re.fullmatch(pattern, url.path)):
                        answer = function(self, **match.groupdict())
                        self._fail(method, url.path, served=True)
                        return self._send(*answer)
                raise HubError(404, f"this Hub knows no {method} {url.path}")
        except HubError as error:
            headers = {"X-Error-Message": str(error)} | ({"X-Error-Code": error.code} if error.code else {})
            self._send({"error": str(error)}, error.status, headers)

    def _fail(self, method, path, served):
        for failing, part, status, after in self.hub.failures:
            if failing == method and part in path and after == served:
                raise HubError(status, "broken on purpose")

    def _send(self, content=None, status=200, headers=None):
        if not isinstance(content, bytes):
            content, headers = json.dumps(content).encode(), {"Content-Type": "application/json"} | (headers or {})
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    @property
    def authorized(self):
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def _check_token(self):
        if not self.authorized:
            raise HubError(401, "Invalid credentials in Authorization header")

    def _repository(self, kind, id, write=False) -> Repository:
        repository = self.hub.repositories.get((kind or "model", id))
        if write:
            self._check_token()
        if repository is None or (repository.private and not self.authorized):
            raise HubError(404 if self.authorized else 401, "Repository not found", "RepoNotFound")
        return repository

    # repositories

    def _named(self):
        self._check_token()
        asked = json.loads(self.body)
        return asked.get("type") or "model", f"{asked.get('organization') or self.hub.user}/{asked['name']}", asked

    def create(self):
        kind, id, asked = self._named()
        url = f"{self.hub.url}/{'' if kind == 'model' else kind + 's/'}{id}"
        if (kind, id) in self.hub.repositories:
            return {"url": url, "error": f"You already created this {kind} repo"}, 409
        repository = Repository(private=asked.get("visibility") == "private" or bool(asked.get("private")))
        repository.commit(
            "main", {".gitattributes": self.hub.store(b"*.safetensors filter=lfs\n", False)}, "initial commit"
        )
        self.hub.repositories[kind, id] = repository
        return {"url": url, "name": id}, 200

    def delete(self):
        kind, id, _ = self._named()
        self._repository(kind, id)
        del self.hub.repositories[kind, id]
        return {}, 200

    def info(self, kind, id, revision="main"):
        repository = self._repository(kind, id)
        sha = repository.resolve(revision)
        files = repository.commits[sha].files
        card = self.hub.objects[files["README.md"].oid].decode() if "README.md" in files else ""
        front = re.match(r"---\s*\n(.*?)\n---\s*\n", card, re.DOTALL)
        return {
            "_id": id, "id": id, "sha": sha, "private": repository.private, "lastModified": DATE, "createdAt": DATE,
            "author": id.split("/")[0], "disabled": False, "gated": False, "downloads": 0, "likes": 0, "tags": [],
            "cardData": yaml.safe_load(front[1]) if front else None,
            "siblings": [{"rfilename": path, "size": len(self.hub.objects[file.oid])} for path, file in files.items()],
        }, 200  # fmt: skip

    def refs(self, kind, id):
        repository = self._repository(kind, id)

        def listed(refs, folder):
            return [{"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": sha} for name, sha in refs.items()]

        branches, tags = listed(repository.branches, "heads"), listed(repository.tags, "tags")
        return {"branches": branches, "tags": tags, "converts": []}, 200

    def commits(self, kind, id, revision):
        repository = self._repository(kind, id)
        sha, listed = repository.resolve(revision), []
        while sha:
            commit = repository.commits[sha]
            listed.append({"id": sha, "title": commit.message, "message": "", "authors": [], "date": DATE})
            sha = commit.parent
        return listed, 200

    def change_ref(self, kind, id, what, name):
        repository = self._repository(kind, id, write=True)
        refs, name = {"branch": repository.branches, "tag": repository.tags}[what], unquote(name)
        asked = json.loads(self.body or b"{}")
        if self.command == "DELETE":
            if name not in refs:
                raise HubError(404, f"no {what} {name}", "RevisionNotFound")
            del refs[name]
            return {}, 200
        if what == "tag":  # the address holds what is tagged
            name, start = asked["tag"], name
        else:
            start = asked.get("startingPoint") or "main"
        if name in refs:
            raise HubError(409, f"the {what} {name} exists")
        refs[name] = repository.resolve(start)
        return {}, 201

    # listings

    def _entry(self, path, file):
        size = len(self.hub.objects[file.oid])
        entry = {"type": "file", "path": path, "size": size, "oid": file.oid[:40]}
        if file.is_lfs:
            entry["lfs"] = {"oid": file.oid, "size": size, "pointerSize": 134}
            if xet_hash := self.hub.xet.hash_of(file.oid):
                entry["xetHash"] = xet_hash
        return entry

    def tree(self, kind, id, revision, folder=None):
        files = self._repository(kind, id).files(revision)
        start = unquote(folder) + "/" if folder else ""
        inside = {path: file for path, file in files.items() if path.startswith(start)}
        if not inside:
            raise HubError(404, f"{unquote(folder or '')} does not exist on {revision}", "EntryNotFound")
        recursive = self.query.get("recursive", "").lower() == "true"
        folders, entries = {}, []
        for path, file in inside.items():
            parts = path[len(start) :].split("/")
            for depth in range(1, len(parts) if recursive else min(2, len(parts))):
                name = start + "/".join(parts[:depth])
                folders[name] = {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest()}
            if recursive or len(parts) == 1:
                entries.append(self._entry(path, file))
        return [*folders.values(), *entries], 200

    def paths_info(self, kind, id, revision):
        files = self._repository(kind, id).files(revision)
        if "json" in self.headers.get("Content-Type", ""):
            paths = json.loads(self.body)["paths"]
        else:
            paths = parse_qs(self.body.decode()).get("paths", [])
        entries = [self._entry(path, files[path]) for path in paths if path in files]
        folders = [path for path in paths if any(name.startswith(path + "/") for name in files)]
        return entries + [{"type": "directory", "path": path, "oid": "0" * 40} for path in folders], 200

    # uploads

    def preupload(self, kind, id, revision):
        repository = self._repository(kind, id, write=True)
        existing, answers = repository.files(revision), []
        for asked in json.loads(self.body)["files"]:
            is_lfs = asked["path"].endswith(LFS_SUFFIXES) or b"\0" in base64.b64decode(asked["sample"])
            answer = {"path": asked["path"], "uploadMode": "lfs" if is_lfs else "regular", "shouldIgnore": False}
            if asked["path"] in existing:
                answer["oid"] = existing[asked["path"]].oid
            answers.append(answer)
        return {"files": answers}, 200

    def xet_token(self, kind, id, what, revision):
        self._repository(kind, id, write=what == "write").resolve(revision)
        body, headers = self.hub.xet.token()
        return body, 200, headers

    def lfs_batch(self, kind, id):
        self._repository(kind, id, write=True)
        objects = []
        for asked in json.loads(self.body)["objects"]:
            answer = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.objects:
                href = f"{self.hub.url}/objects/{asked['oid']}"
                answer["actions"] = {"upload": {"href": href}, "verify": {"href": href + "/verify"}}
            objects.append(answer)
        return {"transfer": "basic", "objects": objects}, 200

    def put_object(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, "the content has another SHA-256")
        self.hub.objects[oid] = self.body
        return b"", 200

    def verify_object(self, oid):
        if len(self.hub.objects.get(oid, b"")) != json.loads(self.body)["size"]:
            raise HubError(404, "the object is not there")
        return {}, 200

    def commit(self, kind, id, revision):
        repository = self._repository(kind, id, write=True)
        branch = unquote(revision)
        if branch not in repository.branches:
            raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        lines = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        header, files = lines[0]["value"], dict(repository.files(branch))
        if header.get("parentCommit", repository.branches[branch]) != repository.branches[branch]:
            raise HubError(412, "A commit has happened since.")
        for line in lines[1:]:
            key, value = line["key"], line["value"]
            if key == "file":
                files[value["path"]] = self.hub.store(base64.b64decode(value["content"]), False)
            elif key == "lfsFile":
                if value["oid"] not in self.hub.objects and self.hub.xet.hash_of(value["oid"]):
                    self.hub.objects[value["oid"]] = self.hub.xet.read(value["oid"], value["size"])
                if value["oid"] not in self.hub.objects:
                    raise HubError(400, f"the LFS object of {value['path']} was never uploaded")
                files[value["path"]] = File(value["oid"], True)
            elif key == "deletedFile":
                del files[value["path"]]
            elif key == "deletedFolder":
                files = {path: file for path, file in files.items() if not path.startswith(value["path"])}
            else:
                raise HubError(400, f"this Hub knows no {key} in a commit")
        sha = repository.commit(branch, files, header["summary"])
        return {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{id}/commit/{sha}"}, 200

    # downloads

    def resolve(self, kind, id, revision, path):
        repository = self._repository(kind, id)
        sha = repository.resolve(revision)
        file = repository.commits[sha].files.get(unquote(path))
        if file is None:
            raise HubError(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": sha, "ETag": f'"{file.oid}"'}
        if not file.is_lfs:
            return self._ranged(file.oid, headers)
        size = str(len(self.hub.objects[file.oid]))
        headers |= {"X-Linked-Size": size, "X-Linked-ETag": f'"{file.oid}"'}
        if xet_hash := self.hub.xet.hash_of(file.oid):
            token = f"{self.hub.url}/api/{kind or 'model'}s/{id}/xet-read-token/{sha}"
            headers |= {"X-Xet-Hash": xet_hash, "Link": f'<{token}>; rel="xet-auth"'}
        return b"", 302, headers | {"Location": f"{self.hub.storage_url}/objects/{file.oid}"}

    def get_object(self, oid):
        return self._ranged(oid, {"ETag": f'"{oid}"'})

    def _ranged(self, oid, headers):
        content = self.hub.objects[oid]
        headers = headers | {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not asked:
            return content, 200, headers
        first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
        return content[first : last + 1], 206, headers | {"Content-Range": f"bytes {first}-{last}/{len(content)}"}

    # people and cards

    def whoami(self):
        self._check_token()
        return {"type": "user", "name": self.hub.user, "orgs": [], "auth": {"accessToken": {"role": "write"}}}, 200

    def validate_yaml(self):
        front = re.match(r"---\s*\n(.*?)\n---\s*\n", json.loads(self.body)["content"], re.DOTALL)
        try:
            metadata = yaml.safe_load(front[1]) if front else {}
        except yaml.YAMLError as error:
            return {"errors": [{"message": str(error)}], "warnings": []}, 400
        missing = [] if metadata.get("license") else [{"message": "no license"}]
        return {"errors": [], "warnings": missing}, 200


ROUTES = (
    ("POST", "/api/repos/create", _Handler.create),
    ("DELETE", "/api/repos/delete", _Handler.delete),
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", "/api/validate-yaml", _Handler.validate_yaml),
    ("GET", API, _Handler.info),
    ("GET", API + "/revision/(?P<revision>[^/]+)", _Handler.info),
    ("GET", API + "/refs", _Handler.refs),
    ("GET", API + "/commits/(?P<revision>[^/]+)", _Handler.commits),
    ("GET", API + "/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", _Handler.tree),
    ("POST", API + "/paths-info/(?P<revision>[^/]+)", _Handler.paths_info),
    ("POST", API + "/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    ("POST", API + "/commit/(?P<revision>[^/]+)", _Handler.commit),
    ("POST DELETE", API + "/(?P<what>branch|tag)/(?P<name>.+)", _Handler.change_ref),
    ("GET", API + "/xet-(?P<what>read|write)-token/(?P<revision>[^/]+)", _Handler.xet_token),
    ("POST", PREFIX + ID + r"\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("GET HEAD", PREFIX + ID + "/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
    ("GET HEAD", "/objects/(?P<oid>[0-9a-f]{64})", _Handler.get_object),
    ("PUT", "/objects/(?P<oid>[0-9a-f]{64})", _Handler.put_object),
    ("POST", "/objects/(?P<oid>[0-9a-f]{64})/verify", _Handler.verify_object),
)


def _handler_of(hub):
    return type("Handler", (_Handler,), {"hub": hub})
