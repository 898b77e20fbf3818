"""A stand-in for the Hugging Face Hub on loopback: the real client pushes to it and loads from it, offline.

It speaks the part of the HTTP API that `huggingface_hub` uses for models and Spaces, and `datasets` for streaming.
It asks for every file inside the commit (the Hub takes large ones aside), and keeps all in memory.
"""

import base64
import hashlib
import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

REPO = r"(?P<repo>[^/]+/[^/]+)"
KIND = "(?:models|spaces)"
ROUTES = {
    "POST /api/validate-yaml": "validate_model_card",
    "POST /api/repos/create": "create_repo",
    rf"POST /api/{KIND}/{REPO}/branch/(?P<branch>[^/]+)": "create_branch",
    rf"POST /api/{KIND}/{REPO}/preupload/(?P<revision>[^/]+)": "preupload",
    rf"POST /api/{KIND}/{REPO}/commit/(?P<branch>[^/]+)": "commit",
    rf"GET /api/(?:models|spaces|datasets)/{REPO}(?:/revision/(?P<revision>[^/]+))?": "model_info",
    rf"GET /api/(?:models|spaces|datasets)/{REPO}/tree/(?P<revision>[^/]+)(?:/.*)?": "list_tree",
    rf"POST /api/datasets/{REPO}/paths-info/(?P<revision>[^/]+)": "paths_info",
    rf"(?:GET|HEAD) (?:/datasets|/spaces)?/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)": "resolve",
}


class HubError(Exception):
    """An error answer; the client chooses its exception class by `code`."""

    def __init__(self, status, code=""):
        super().__init__(code or status)
        self.status, self.code = status, code


class HubServer:
    """A context manager around the running server.

    Attributes:
        branches: The commits of each (repository, branch), the oldest first: its id and {path: content}.
        fails: Whether every commit is answered with an error.
    """

    def __init__(self, token):
        self.token, self.branches, self.requests, self.fails = token, {}, 0, False
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.http.shutdown()
        self.http.server_close()

    def environment(self, home):
        """Make the environment of a client process that knows this Hub alone, with its cache in `home`."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        return env | {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": self.token,
            "NO_PROXY": "127.0.0.1",
        }

    def files(self, repo, branch="main"):
        return self.branches[repo, branch][-1][1]


def git_id(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def serve(self):
        self.hub.requests += 1
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {}
        try:
            status, body = 200, self.dispatch(headers)
            if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
                start, end = int(part[1]), int(part[2] or len(body) - 1) + 1
                headers["Content-Range"] = f"bytes {start}-{min(end, len(body)) - 1}/{len(body)}"
                status, body = 206, body[start:end]
        except HubError as error:
            status, body, headers["X-Error-Code"] = error.status, {"error": str(error)}, error.code
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers | {"Content-Length": len(body)}).items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = serve

    def dispatch(self, headers):
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            raise HubError(401)
        for route, name in ROUTES.items():
            if match := re.fullmatch(route, f"{self.command} {urlsplit(self.path).path}"):
                arguments = {key: unquote(value or "main") for key, value in match.groupdict().items()}
                return getattr(self, name)(**arguments, **({"headers": headers} if name == "resolve" else {}))
        raise HubError(404)

    def log_message(self, *arguments):
        pass

    def find(self, repo, revision):
        """Return the commit that a branch or an id stands for."""
        if (repo, "main") not in self.hub.branches:
            raise HubError(404, "RepoNotFound")
        commits = {c[0]: c for (name, _), branch in self.hub.branches.items() if name == repo for c in branch}
        commits |= {branch: c[-1] for (name, branch), c in self.hub.branches.items() if name == repo}
        if revision not in commits:
            raise HubError(404, "RevisionNotFound")
        return commits[revision]

    def validate_model_card(self):
        return {"errors": [], "warnings": []}

    def create_repo(self):
        wanted = json.loads(self.body)
        name = f"{wanted['organization']}/{wanted['name']}"
        self.hub.branches.setdefault((name, "main"), [("0" * 40, {})])
        return {"url": f"{self.hub.url}/{name}"}

    def create_branch(self, repo, branch):
        self.hub.branches.setdefault((repo, branch), [self.find(repo, "main")])
        return {}

    def model_info(self, repo, revision):
        commit, files = self.find(repo, revision)
        return {"id": repo, "sha": commit, "siblings": [{"rfilename": path} for path in files]}

    def list_tree(self, repo, revision):
        files = self.find(repo, revision)[1]
        return [
            {"type": "file", "path": path, "size": len(content), "oid": git_id(content)}
            for path, content in files.items()
        ]

    def paths_info(self, repo, revision):
        paths = parse_qs(self.body.decode()).get("paths", [])
        return [file for file in self.list_tree(repo, revision) if file["path"] in paths]

    def preupload(self, repo, revision):
        files = self.find(repo, revision)[1]
        paths = [file["path"] for file in json.loads(self.body)["files"]]
        known = {path: {"oid": git_id(files[path])} for path in paths if path in files}
        regular = {"uploadMode": "regular", "shouldIgnore": False}
        return {"files": [regular | {"path": path} | known.get(path, {}) for path in paths]}

    def commit(self, repo, branch):
        if self.hub.fails:
            raise HubError(500)
        files = dict(self.find(repo, branch)[1])
        for line in self.body.splitlines()[1:]:
            operation = json.loads(line)
            path = operation["value"]["path"]
            if operation["key"] == "file":
                files[path] = base64.b64decode(operation["value"]["content"])
            else:
                assert operation["key"] == "deletedFile"
                del files[path]
        commits = self.hub.branches[repo, branch]
        commits.append((hashlib.sha1(self.body).hexdigest(), files))
        return {"commitOid": commits[-1][0], "commitUrl": f"{self.hub.url}/{repo}/commit/{commits[-1][0]}"}

    def resolve(self, repo, revision, path, headers):
        headers["X-Repo-Commit"], files = self.find(repo, revision)
        if path not in files:  # the client's cache notes the absence under this commit
            raise HubError(404, "EntryNotFound")
        headers["ETag"] = f'"{git_id(files[path])}"'
        return files[path]
