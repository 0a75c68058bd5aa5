"""The page's files, read once from the package and served from memory.

Decides: which files are served and as what; that an unknown path is the page itself, which knows
its own addresses.
Leaves to others: what is in them.
Invariants: only what stands in the package is served; no path of a request reaches the file system.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from aiohttp import web

TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "ico": "image/x-icon",
    "woff2": "font/woff2",
    "json": "application/json",
    "webmanifest": "application/manifest+json",
}
INDEX = "index.html"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file with its type and its entity tag."""

    body: bytes
    type: str
    tag: str


class Assets:
    """All files of ``federation.console.assets``."""

    def __init__(self) -> None:
        self._found: dict[str, Asset] = {}
        self._read(files("federation.console") / "assets", "")

    def __repr__(self) -> str:
        return f"Assets({len(self._found)})"

    def _read(self, folder: Traversable, path: str) -> None:
        if not folder.is_dir():
            return
        for entry in folder.iterdir():
            name = f"{path}{entry.name}"
            if entry.is_dir():
                self._read(entry, f"{name}/")
            elif (found := TYPES.get(entry.name.rpartition(".")[2])) is not None:
                body = entry.read_bytes()
                tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
                self._found[name] = Asset(body, found, tag)

    async def serve(self, request: web.Request) -> web.Response:
        """The file at the request's path, or the page."""
        name = request.path.removeprefix("/")
        asset = self._found.get(name)
        if asset is None and "." not in name.rpartition("/")[2]:
            asset = self._found.get(INDEX)
        if asset is None:
            return web.Response(status=404, text=f"no file {request.path} in the console\n")
        headers = {"ETag": asset.tag, "Cache-Control": "no-cache", "Content-Type": asset.type}
        if request.headers.get("If-None-Match") == asset.tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=asset.body, headers=headers)
