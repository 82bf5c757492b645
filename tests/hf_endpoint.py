"""A local HTTP server that answers as huggingface.co does for the repositories in a folder."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

# repository → revision → folder
Repositories = dict[str, dict[str, Path]]


class Endpoint(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server: 'Server'

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        path = unquote(urlsplit(self.path).path).strip('/')
        self.server.seen.append((self.command, path, self.headers.get('Range')))
        parts = path.split('/')
        if parts[0] == 'api':
            kind, parts = ('datasets/' if parts[1] == 'datasets' else ''), parts[2:]
            repo, rest = kind + '/'.join(parts[:2]), parts[2:]
            folder = self.folder(repo, rest[1] if len(rest) > 1 else 'main')
            if folder is None:
                return
            files = sorted(str(file.relative_to(folder)) for file in folder.rglob('*') if file.is_file())
            if rest[:1] == ['tree']:
                entries = [
                    {'type': 'file', 'path': name, 'size': (folder / name).stat().st_size, 'oid': 'x'} for name in files
                ]
                self.reply(json.dumps(entries).encode(), body)
            else:
                info = {'id': repo, 'sha': commit(folder), 'siblings': [{'rfilename': name} for name in files]}
                self.reply(json.dumps(info).encode(), body)
            return
        kind = 'datasets/' if parts[0] == 'datasets' else ''
        parts = parts[1:] if kind else parts
        folder = self.folder(kind + '/'.join(parts[:2]), parts[3])
        if folder is not None:
            self.file(folder, '/'.join(parts[4:]), body)

    def folder(self, repo, revision):
        if repo in self.server.gated:
            return self.refuse(403, 'GatedRepo')
        if repo not in self.server.repositories:
            return self.refuse(401, 'RepoNotFound')
        revisions = self.server.repositories[repo]
        found = {**revisions, **{commit(folder): folder for folder in revisions.values()}}.get(revision)
        return found if found is not None else self.refuse(404, 'RevisionNotFound')

    def file(self, folder, name, body):
        data = (folder / name).read_bytes()
        etag = hashlib.sha256(data).hexdigest()
        headers = {'ETag': f'"{etag}"', 'X-Repo-Commit': commit(folder), 'Accept-Ranges': 'bytes'}
        status, asked = 200, self.headers.get('Range')
        if asked and body:
            first = int(asked.removeprefix('bytes=').split('-')[0])
            headers['Content-Range'] = f'bytes {first}-{len(data) - 1}/{len(data)}'
            status, data = 206, data[first:]
        cut = body and name in self.server.broken
        if cut:
            self.server.broken.discard(name)
        self.reply(data, body, status, headers, cut)

    def reply(self, data, body, status=200, headers=None, cut=False):
        self.send_response(status)
        for key, value in {'Content-Length': str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True

    def refuse(self, status, code):
        self.reply(b'{"error": "no"}', self.command == 'GET', status, {'X-Error-Code': code})


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, repositories: Repositories):
        super().__init__(('127.0.0.1', 0), Endpoint)
        self.repositories = repositories
        self.gated: set[str] = set()
        self.broken: set[str] = set()  # files whose next transfer ends halfway
        self.seen: list[tuple[str, str, str | None]] = []

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_address[1]}'


def commit(folder: Path) -> str:
    return hashlib.sha1(str(folder).encode()).hexdigest()


@contextmanager
def serving(repositories: Repositories):
    server = Server(repositories)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
