"""A fabricated package index on loopback, with vLLM releases that hold almost nothing."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import re
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

PYTHON_FILES = {
    "vllm/__init__.py": b"__version__ = 'fabricated'\n",
    "vllm/envs.py": b"VLLM = 1\n" * 1000,
    "vllm/platforms/rocm.py": b"class RocmPlatform: ...\n",
}
LIBRARY = random.Random(7).randbytes(2 << 20)


@dataclass
class Shelf:
    """A package index that holds ``files`` and can misbehave."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    html: bool = False
    broken_answers: int = 0
    refusals: list[int] = field(default_factory=list)
    elsewhere: str = ""
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    bytes_sent: int = 0

    def add(self, version: str, wheel: bytes | None = None, sdist: bytes | None = None) -> None:
        name = f"vllm-{version}-cp38-abi3-manylinux_2_31_x86_64.whl"
        self.files[name] = wheel if wheel is not None else make_wheel(version)
        self.files[f"vllm-{version}.tar.gz"] = sdist if sdist is not None else make_sdist(version)

    def fetches(self, suffix: str) -> int:
        """How often a file was asked for from its first byte."""
        return sum(
            path.endswith(suffix) and headers.get("Range", "bytes=0-0") == "bytes=0-0"
            for path, headers in self.asked
        )

    def page(self, project: str) -> tuple[str, bytes]:
        names = [name for name in self.files if name.startswith(project.replace("-", "_"))]
        rows = [(name, f"{self.elsewhere}/files/{name}", self._sha256(name)) for name in names]
        if self.html:
            links = "".join(f'<a href="{url}#sha256={sha}">{name}</a>' for name, url, sha in rows)
            return "text/html", f"<html><body>{links}</body></html>".encode()
        files = [
            {"filename": n, "url": u, "hashes": {"sha256": s}, "size": len(self.files[n])}
            for n, u, s in rows
        ]
        body = {"meta": {"api-version": "1.1"}, "name": project, "versions": [], "files": files}
        return "application/vnd.pypi.simple.v1+json", json.dumps(body).encode()

    def _sha256(self, name: str) -> str:
        return self.hashes.get(name, hashlib.sha256(self.files[name]).hexdigest())


def handler_of(shelf: Shelf) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shelf.asked.append((self.path, dict(self.headers)))
            if shelf.refusals:
                self.send_error(shelf.refusals.pop(0))
            elif project := re.fullmatch(r"/simple/(vllm|amd-aiter)/", self.path):
                kind, page = shelf.page(project.group(1))
                self._send(200, page, {"Content-Type": kind})
            elif (body := shelf.files.get(self.path.removeprefix("/files/"))) is not None:
                self._send_file(body)
            else:
                self.send_error(404)

        def _send_file(self, body: bytes) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if asked is None or not shelf.ranges:
                self._send(200, body, {})
                return
            start, end = int(asked[1]), int(asked[2]) + 1
            piece = body[start:end]
            where = f"bytes {start}-{start + len(piece) - 1}/{len(body)}"
            self._send(206, piece, {"Content-Range": where})

        def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.path.startswith("/files/") and shelf.broken_answers:
                shelf.broken_answers -= 1
                body = body[: len(body) // 2]
            shelf.bytes_sent += len(body)
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Quiet."""

    return Handler


def record_row(name: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}"


def make_wheel(
    version: str,
    *,
    members: Mapping[str, bytes] | None = None,
    recorded: Mapping[str, bytes] | None = None,
) -> bytes:
    """A wheel with a library between its Python files; ``recorded`` is what RECORD is made from."""
    info = f"vllm-{version}.dist-info"
    content = {
        "vllm/__init__.py": PYTHON_FILES["vllm/__init__.py"],
        "vllm/_C.abi3.so": LIBRARY,
        **PYTHON_FILES,
        "vllm/configs/table.json": b"{}",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n".encode(),
        **(members or {}),
    }
    rows = [record_row(n, d) for n, d in (recorded if recorded is not None else content).items()]
    content[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            kind = zipfile.ZIP_STORED if data is LIBRARY else zipfile.ZIP_DEFLATED
            archive.writestr(name, data, kind)
    return buffer.getvalue()


def make_sdist(version: str, extra: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in (f"vllm-{version}/docs/index.md", f"vllm-{version}/pyproject.toml", extra):
            if name:
                member = tarfile.TarInfo(name)
                member.size = 5
                archive.addfile(member, io.BytesIO(b"text\n"))
    return buffer.getvalue()
