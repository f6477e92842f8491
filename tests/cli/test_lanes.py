"""What is seen of a run, line by line, on a terminal of a hundred columns without colours."""

from __future__ import annotations

import io
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from server.cli.board import Watched
from server.cli.lanes import clean, render_run, render_screen, seconds
from server.events import Event
from server.run_view import RunView
from tests.cli.told import DRAFT, RUN, created, drafting, event, of, whole

WIDTH = 100
EVIL = "\x1b]0;owned\x07\x1b[2Jm\x9b31m[red]\u202eodel\r\n"


def seen(picture: RenderableType, width: int = WIDTH) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=True, markup=False)
    console.print(picture)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def watched(events: Iterable[Event], now: float = 0.0) -> Watched:
    run = Watched(RunView(RUN), now)
    for one in events:
        run.hear(one, now)
    return run


def words(line: str) -> str:
    """What stands in a line of a panel, with single spaces."""
    return " ".join(line.strip("│ ").split())


def test_each_member_has_a_lane_and_the_summary_comes_last() -> None:
    lines = seen(render_run(watched(drafting()), 0.0))
    assert lines[0].startswith(f"╭─ {RUN} ─")
    assert words(lines[1]) == "parallel · synthesize · in progress · 2.00 s"
    assert words(lines[2]) == "✓ m1 deepseek-flash finished 0.41 s 212 tok 152.7 t/s"
    assert words(lines[3]) == "⠋ m2 spark-max writing 1.00 s ~100 tok 100.0 t/s"
    assert words(lines[4]) == "✗ m3 qwen-plus failed rate_limit_exceed…"
    assert words(lines[5]) == "· summary spark-ultra pending"
    assert words(lines[6]) == "m3: 429 rate_limit_exceeded: The upstream asks for less."
    assert {len(line) for line in lines} == {WIDTH}


def test_a_run_that_has_ended_shows_its_usage_its_level_and_its_time() -> None:
    lines = seen(render_run(watched(whole()), 99.0))
    assert words(lines[1]) == "parallel · synthesize · completed · 3.60 s · partial"
    assert words(lines[3]) == "✓ m2 spark-max finished 1.00 s ~212 tok length"
    assert words(lines[5]) == "✓ summary spark-ultra finished 0.40 s 212 tok 212.0 t/s"
    assert "~971 + 1,059 = ~2,030 tokens · cost 0.0012 · first text 2.60 s" in lines[-1]


def test_time_goes_on_between_two_events_and_stops_with_the_run() -> None:
    assert "· 3.50 s" in seen(render_run(watched(drafting(), now=10.0), 11.5))[1]
    assert "· 3.60 s" in seen(render_run(watched(whole(), now=10.0), 11.5))[1]


def test_the_spinner_turns_with_the_time() -> None:
    run = watched(drafting())
    assert [words(seen(render_run(run, at / 8))[3])[:1] for at in range(3)] == ["⠋", "⠙", "⠹"]


@pytest.mark.parametrize(
    ("told", "state"),
    [
        (event("model.queued", 4, 2, {"waiting_for": "channel"}, **of("m1")), "queued"),
        (event("model.started", 4, 2, **of("m1")), "connecting"),
        (event("model.first_token", 4, 2, {"ttft_ms": 1, "kind": "reasoning"}, **of("m1")), "thinking"),
        (event("model.first_token", 4, 2, {"ttft_ms": 1, "kind": "text"}, **of("m1")), "writing"),
        (event("model.skipped", 4, 2, {"reason": "breaker"}, **of("m1")), "skipped"),
        (event("model.cancelled", 4, 2, {"reason": "quorum", "latency_ms": 1}, **of("m1")), "cancelled"),
    ],
)
def test_a_lane_tells_its_state(told: Event, state: str) -> None:
    line = seen(render_run(watched([created(), told]), 0.0))[2]
    assert words(line).split()[3] == state
    assert getattr(told.data, "reason", "") in line


def test_of_a_run_that_was_not_summarised_the_summary_was_not_needed() -> None:
    ended = event("run.completed", 2, 9, {"answer_by": "m1", "level": "lone", "finish_reason": "stop"})
    assert words(seen(render_run(watched([created(), ended]), 0.0))[5]) == "· summary spark-ultra not needed"


def test_a_failed_run_shows_the_error_that_its_client_got() -> None:
    error = {"message": "No member answered.", "type": "upstream_error", "param": None, "code": "no_draft"}
    lines = seen(render_run(watched([created(), event("run.failed", 2, 9, {"error": error})]), 0.0))
    assert words(lines[1]).endswith("· failed · 0.01 s")
    assert words(lines[-2]) == "no_draft: No member answered."


def test_a_cancelled_run_shows_by_whom() -> None:
    lines = seen(render_run(watched([created(), event("run.cancelled", 2, 9, {"by": "client"})]), 0.0))
    assert "cancelled by client" in lines[1]


def test_a_run_joined_late_shows_what_its_snapshot_tells() -> None:
    before = watched(drafting()).view.snapshot()
    lines = seen(render_run(Watched(RunView.from_snapshot(before), 0.0), 5.0))
    assert words(lines[1]) == "parallel · synthesize · in progress"
    assert words(lines[2]).startswith("✓ m1 deepseek-flash finished")


def test_with_text_each_writing_lane_shows_the_end_of_its_text() -> None:
    run = watched(whole()[:-3])
    assert not any("agree" in line for line in seen(render_run(run, 0.0)))
    assert words(seen(render_run(run, 0.0, text=True))[6]) == "summary ▸ Both agree. It scatters."


def test_with_text_a_run_that_has_ended_shows_its_answer() -> None:
    lines = [words(line) for line in seen(render_run(watched(whole()), 0.0, text=True))]
    assert lines[6:8] == ["Both agree.", "It scatters."]


@pytest.mark.parametrize("width", [1, 2, 20, 40, 60, 400])
def test_no_width_is_too_narrow_or_too_wide(width: int) -> None:
    picture = render_screen([watched(whole())], 0.0, height=5, status="here", text=True)
    assert all(len(line) <= width for line in seen(picture, width))


def test_where_it_is_narrow_models_keep_their_names_and_figures_go() -> None:
    lines = seen(render_run(watched(drafting()[:9]), 0.0), 44)
    assert any("deepseek" in line and "m1" in line for line in lines)
    assert any("spark-max" in line and "writing" in line for line in lines)
    assert {len(line) for line in lines} == {44}


def test_more_lanes_than_lines_are_counted_and_those_that_write_are_shown() -> None:
    run = watched(drafting())
    lines = seen(render_screen([run], 0.0, height=9, status="waiting"), 80)
    assert len(lines) == 7
    assert words(lines[2]).startswith("⠋ m2 spark-max writing")
    assert words(lines[4]) == "… 2 more: 1 finished, 1 pending"
    assert lines[-1] == "waiting"


def test_a_status_leaves_room_for_what_a_terminal_echoes() -> None:
    assert len(seen(render_screen([], 0.0, height=9, status="x" * 99), 80)[-1]) <= 77


def test_wide_characters_keep_the_frame_straight() -> None:
    members = [{"id": "m1", "model": "模型" * 40, "weight": 1}]
    lines = seen(render_run(watched([created(members=members)]), 0.0))
    assert all(line[0] in "╭│╰" and line[-1] in "╮│╯" for line in lines)


def test_more_runs_than_lines_are_counted_and_the_newest_shown() -> None:
    runs = [watched([created(model=f"model-{at}")]) for at in range(10)]
    lines = seen(render_screen(runs, 0.0, height=24, status="status"))
    assert words(lines[0]) == "7 more under way"
    assert [line for line in lines if "model-9" in line]
    assert not [line for line in lines if "model-6" in line]
    assert len(lines) <= 24
    assert lines[-1].strip() == "status"


def test_names_and_messages_cannot_command_the_terminal() -> None:
    members = [{"id": "m1" + EVIL, "model": EVIL, "weight": 1}]
    error = {"message": EVIL, "type": "x", "param": None, "code": EVIL}
    failed = {"code": EVIL, "http_status": 500, "retryable": False, "latency_ms": 1, "message": EVIL}
    where = {"stage": DRAFT, "member": {"id": "m1" + EVIL, "model": EVIL}}
    run = watched(
        [
            created(model=EVIL, strategy=EVIL, summary=EVIL, members=members),
            event("model.failed", 2, 1, failed, **where),
            event("run.failed", 3, 2, {"error": error}),
        ]
    )
    picture = render_screen([run], 0.0, height=50, status=EVIL, text=True)
    text = "".join(seen(picture))
    assert not set(text) & set("\x1b\x07\x9b\u202e\r")
    assert "[red]odel" in text  # and no markup is read


@given(st.text(st.characters(exclude_categories=()), max_size=400))
def test_what_is_clean_is_printable_short_and_stays_so(text: str) -> None:
    cleaned = clean(text, 100)
    assert len(cleaned) <= 100
    assert not any(char < " " or "\x7f" <= char <= "\x9f" or "\ud800" <= char <= "\udfff" for char in cleaned)
    assert clean(cleaned, 100) == cleaned


def test_text_that_is_too_long_ends_in_an_ellipsis() -> None:
    assert clean("a" * 10, 5) == "aaaa…"
    assert clean("aaaaa", 5) == "aaaaa"


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(None, ""), (0, "0.00 s"), (9_999, "10.00 s"), (61_000, "61.0 s"), (661_000, "11 min 1 s")],
)
def test_times_are_short(ms: int | None, shown: str) -> None:
    assert seconds(ms) == shown
