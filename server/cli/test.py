"""``antiphon test [CHANNEL …]``: does each channel answer a real, tiny call, and how soon?"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape

from server.cli.config_file import add_config_file, add_examples
from server.config import ConfigError, default_path, load
from server.logs import set_up_logging
from server.routing.channel import ChannelState
from server.routing.trial import ChannelTrial, Trial, try_channel
from server.settings import AUTO, Channel, Logging, Settings
from server.surfaces import chat_models
from server.upstreams.factory import build_upstreams, client_session

# So much of an answer is shown (characters), and so many of the models that an upstream lists.
SHOWN = 60
SHOWN_MODELS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="FILE | CHANNEL",
        help="a first word that ends in .yaml or .yml is the configuration file; the others are the channels "
        "to try (default: all enabled)",
    )
    add_config_file(parser, word=False)
    parser.add_argument(
        "--model",
        help="ask this model (default: the first of each channel); channels without it are left out",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for each channel, as it comes")
    parser.description = "Makes a real, tiny call with each key of each channel. A call costs a few tokens."
    add_examples(
        parser,
        "test",
        "test conf/examples/failover.yaml main twin",
        "test --config /etc/antiphon.yaml --model gpt-4o",
        status="0 every channel answered, 1 one did not, 2 wrong usage or configuration",
    )


def run(options: argparse.Namespace) -> int:
    """Try the channels, and tell of each as it comes."""
    words: list[str] = options.words
    if words and words[0].endswith((".yaml", ".yml")) and options.file is None:
        options.file = Path(words.pop(0))
    try:
        settings = load(default_path(options.file)).settings
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    known = {channel.name: channel for channel in settings.channels}
    if unknown := [name for name in words if name not in known]:
        print(
            f"antiphon: no such channel: {', '.join(unknown)}; there are {', '.join(known) or 'none'}",
            file=sys.stderr,
        )
        return 2
    named = words or [channel.name for channel in settings.channels if channel.enabled]
    channels = [known[name] for name in dict.fromkeys(named)]
    if options.model is not None:
        channels = [one for one in channels if one.models == AUTO or options.model in one.served()]
    channels = [one for one in channels if one.models == AUTO or chat_models(one)]
    if not channels:
        print("antiphon: there is no such channel to try; see 'antiphon check'", file=sys.stderr)
        return 2
    set_up_logging(Logging(level="error"))  # what went wrong is told below
    return asyncio.run(_try_all(settings, channels, options.model, as_json=options.json))


async def _try_all(
    settings: Settings, channels: Sequence[Channel], model: str | None, *, as_json: bool
) -> int:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    failed = 0
    with console.status("") as status:
        status.update(f"asking {channels[0].name}")
        async with aclosing(_trials(settings, channels, model)) as trials:
            done = 0
            async for trial in trials:
                done += 1
                failed += not trial.ok
                if as_json:
                    print(msgspec.json.encode(trial).decode(), flush=True)
                else:
                    _print(console, trial)
                if done < len(channels):
                    status.update(f"asking {channels[done].name}")
    if not as_json:
        console.print(f"{len(channels) - failed} of {len(channels)} channels answer")
    return 1 if failed else 0


async def _trials(
    settings: Settings, channels: Sequence[Channel], model: str | None
) -> AsyncGenerator[ChannelTrial, None]:
    """One after the other: what is measured is not disturbed by our own calls."""
    session = client_session(settings.images)
    try:
        for channel in channels:
            asked = model or next(iter(chat_models(channel)), None)
            state = ChannelState(channel, build_upstreams(channel, session))
            try:
                yield await try_channel(state, asked, session.lister.list)
            finally:
                await state.aclose()
    finally:
        await session.close()


def _print(console: Console, trial: ChannelTrial) -> None:
    for call in trial.calls:
        result = "[green]answers[/]" if call.ok else "[red]fails[/]  "
        times = _times(trial, call)
        console.print(
            f"{result}  [bold]{escape(call.key)}[/]  {trial.kind}, {escape(trial.model)}  {times}".rstrip()
        )
        if call.ok:
            text = " ".join(call.text.split())
            console.print(f"         said: {escape(text[:SHOWN])}{'…' if len(text) > SHOWN else ''}")
        else:
            console.print(f"         {call.code}: {escape(call.message or '')}")
    if trial.models is not None:
        names = ", ".join(trial.models[:SHOWN_MODELS]) + (", …" if len(trial.models) > SHOWN_MODELS else "")
        console.print(f"         lists {len(trial.models)} models: {escape(names)}")
    elif trial.models_error is not None and any(call.ok for call in trial.calls):
        console.print(f"         does not list its models: {escape(trial.models_error)}")
    if trial.missing:
        console.print(f"         [yellow]does not list[/] {escape(', '.join(trial.missing))}")


def _times(trial: ChannelTrial, call: Trial) -> str:
    told = {"connect": trial.connect_s, "first token": call.first_token_s, "total": call.total_s}
    return ", ".join(f"{name} {1000 * s:.0f} ms" for name, s in told.items() if s is not None)
