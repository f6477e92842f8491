"""The page to watch, at ``/``: a few files of ours, read once and served from memory.

The page itself is asked for again at each visit; what it loads has the version of all the files together in
its address, and is kept by browsers for good. Only the names that were read are ever served: a path is looked
up, never opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from aiohttp import ETag, web

from server.errors import NotFound
from server.middlewares import needs_no_key

FOLDER = Path(__file__).parent.parent / "web"
START = "index.html"

_PLACE = b"web/VERSION/"
_TYPES: Mapping[str, str] = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_FOREVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"


class File(msgspec.Struct, frozen=True):
    """One file: its bytes, its media type, and the hash of its bytes."""

    body: bytes
    type: str
    etag: str


class Page:
    """The files in ``folder``, by their names within it. ``version`` is one hash of them all.

    Files of a kind that pages do not load (the notes beside them) are passed over. Raises OSError.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        read = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.suffix in _TYPES
        }
        whole = hashlib.sha256()
        for name, body in read.items():
            whole.update(b"%b\0%d\0%b" % (name.encode(), len(body), body))
        self.version = whole.hexdigest()[:16]
        read[START] = read[START].replace(_PLACE, b"web/%b/" % self.version.encode())
        self.files: Mapping[str, File] = {
            name: File(body, _TYPES[Path(name).suffix], hashlib.sha256(body).hexdigest()[:32])
            for name, body in read.items()
        }

    def routes(self) -> Iterator[web.RouteDef]:
        """GET and HEAD of the page and of what it loads. Anybody may load them; they hold nothing secret."""
        yield web.get("/", self.start)
        yield web.get("/web/{version}/{name:.+}", self.part)

    @needs_no_key
    async def start(self, request: web.Request) -> web.Response:
        """The page itself."""
        return _answer(request, self.files[START], _ASK_AGAIN)

    @needs_no_key
    async def part(self, request: web.Request) -> web.Response:
        """What the page loads. A page of another version is told so: parts of two do not fit together."""
        name = request.match_info["name"]
        file = self.files.get(name)
        if file is None or name == START or request.match_info["version"] != self.version:
            raise NotFound("The page has no such part; load it again.")
        return _answer(request, file, _FOREVER)


def _answer(request: web.Request, file: File, caching: str) -> web.Response:
    headers = {**_HEADERS, "Cache-Control": caching, "ETag": f'"{file.etag}"'}
    if any(_matches(known, file) for known in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=file.body, content_type=file.type, charset="utf-8", headers=headers)


def _matches(known: ETag, file: File) -> bool:
    return known.value in (file.etag, "*")
