"""The page's files as they are served: caching, headers, and no way out of the folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from server.handlers.web import FOLDER, Page
from server.settings import Access, AccessKey, Settings
from tests.behaviour.running import QUIET, Antiphon, antiphon
from tests.served import exchange

VERSION = Page().version
KEYED = Access(keys=(AccessKey(name="ann", key="key-of-ann"),))


@pytest.fixture
async def server() -> AsyncIterator[Antiphon]:
    async with antiphon(Settings(logging=QUIET)) as started:
        yield started


async def get(
    server: Antiphon, path: str, method: str = "GET", **headers: str
) -> tuple[aiohttp.ClientResponse, bytes]:
    async with server.client.request(method, server.url + path, headers=headers) as response:
        return response, await response.read()


async def test_the_start_is_the_page_and_is_asked_for_again_each_time(server: Antiphon) -> None:
    response, body = await get(server, "/")
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-cache"
    assert body.startswith(b"<!doctype html>")
    assert b"VERSION" not in body


async def test_everything_that_the_page_loads_is_there_and_is_kept_for_good(server: Antiphon) -> None:
    _, body = await get(server, "/")
    named = re.findall(r'(?:src|href)="([^"]+)"', body.decode())
    modules = {name for name in Page().files if name.endswith("js")}
    assert {
        path.removeprefix(f"web/{VERSION}/") for path in named
    } >= modules  # no waiting for imports of imports
    for path in named:
        response, _ = await get(server, f"/{path}")
        assert response.status == 200, path
        assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize("name", sorted(name for name in Page().files if name.endswith("js")))
async def test_a_module_and_all_that_it_imports_are_served_as_scripts(server: Antiphon, name: str) -> None:
    response, body = await get(server, f"/web/{VERSION}/{name}")
    assert response.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert body == (FOLDER / name).read_bytes()
    for imported in re.findall(rb'^import [^"]*"([^"]+)";$', body, re.MULTILINE):
        path = (FOLDER / name).parent / imported.decode()
        assert path.resolve().relative_to(FOLDER).as_posix() in Page().files


@pytest.mark.parametrize("path", ["/", f"/web/{VERSION}/app.js"])
async def test_an_unchanged_file_is_not_sent_twice(server: Antiphon, path: str) -> None:
    first, _ = await get(server, path)
    again, body = await get(server, path, **{"If-None-Match": first.headers["ETag"]})
    assert (again.status, body) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    other, _ = await get(server, path, **{"If-None-Match": '"something-else"'})
    assert other.status == 200


@pytest.mark.parametrize("path", ["/", f"/web/{VERSION}/style.css"])
async def test_head_tells_what_get_would(server: Antiphon, path: str) -> None:
    told, body = await get(server, path, "HEAD")
    whole, content = await get(server, path)
    assert (told.status, body) == (200, b"")
    assert told.headers["Content-Length"] == str(len(content))
    assert told.headers["ETag"] == whole.headers["ETag"]


async def test_the_page_may_run_its_own_scripts_and_speak_to_its_own_server_only(server: Antiphon) -> None:
    response, body = await get(server, "/")
    policy = dict(one.strip().split(" ", 1) for one in response.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert b"<style" not in body
    assert not re.search(rb"<script(?![^>]* src=)", body)
    assert not re.search(rb"\s(on\w+|style)=", body)


@pytest.mark.parametrize(
    "path",
    [
        f"/web/{VERSION}/../handlers/web.py",
        f"/web/{VERSION}/..%2fhandlers%2fweb.py",
        f"/web/{VERSION}/%2e%2e/handlers/web.py",
        f"/web/{VERSION}//etc/passwd",
        f"/web/{VERSION}/views/../../app.py",
        f"/web/{VERSION}/vendor/README.md",
        f"/web/{VERSION}/index.html",
        f"/web/{VERSION}/",
        "/web/0123456789abcdef/app.js",
        "/web/app.js",
        "/index.html",
    ],
)
async def test_nothing_else_is_served(server: Antiphon, path: str) -> None:
    request = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode()  # as it is: clients tidy paths
    answer = await exchange(server.port, request)
    assert answer.status == 404
    assert answer.json()["error"]["code"] == "not_found"


async def test_the_page_takes_no_other_method(server: Antiphon) -> None:
    response, _ = await get(server, "/", "POST")
    assert response.status == 405
    assert "GET" in response.headers["Allow"]


async def test_the_page_needs_no_key_but_what_it_shows_does() -> None:
    async with antiphon(Settings(access=KEYED, logging=QUIET)) as server:
        for path in ("/", f"/web/{VERSION}/app.js"):
            assert (await get(server, path))[0].status == 200
        for path in ("/v1/models", "/v1/runs", "/models"):
            assert (await get(server, path))[0].status == 401


async def test_without_keys_the_page_is_for_this_machine_only(server: Antiphon) -> None:
    response, _ = await get(server, "/", Host="elsewhere.example.org")
    assert response.status == 403


def test_the_version_changes_with_any_file_and_with_its_name(tmp_path: Path) -> None:
    versions = set()
    for name, text in (("a.js", "1"), ("a.js", "2"), ("b.js", "1")):
        folder = tmp_path / f"{name}{text}"
        folder.mkdir()
        (folder / "index.html").write_text("web/VERSION/a.js")
        (folder / name).write_text(text)
        page = Page(folder)
        versions.add(page.version)
        assert page.files["index.html"].body == f"web/{page.version}/a.js".encode()
    assert len(versions) == 3


def test_the_vendored_modules_are_the_published_ones() -> None:
    table = (FOLDER / "vendor/README.md").read_text()
    rows = re.findall(r"^\| `(\S+)` .*\(`(\S+)`\) \| `([0-9a-f]{64})` \|$", table, re.MULTILINE)
    assert {name for name, _, _ in rows} == {path.name for path in (FOLDER / "vendor").glob("*.mjs")}
    for name, licence, digest in rows:
        assert hashlib.sha256((FOLDER / "vendor" / name).read_bytes()).hexdigest() == digest
        assert (FOLDER / "vendor" / licence).is_file()


def test_no_file_of_the_page_is_long() -> None:
    ours = [FOLDER / name for name in Page().files if not name.startswith("vendor/")]
    assert max(len(path.read_text(encoding="utf-8").splitlines()) for path in ours) < 400
