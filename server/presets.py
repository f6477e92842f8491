"""Presets of kind ``openai``: what makes it fit one vendor, as data.

Sources are the vendors' documentation and what their services were seen doing. A channel's own settings win
over those of its preset. Rules for fields of a request are followed by ``upstreams/preset_rules.py``: what is
left out, renamed or changed is told to the client (``x-antiphon-warnings``); what would change the meaning of
the request is refused.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from server.settings import Channel, Range, TimeoutsPatch

# What an error means: the account's quota is spent, the credentials are bad, the vendor is busy, loads its
# model, asks for fewer requests, its moderation refused, the conversation is too long, the request is at
# fault.
Meaning: TypeAlias = Literal["quota", "auth", "busy", "loading", "rate", "content", "length", "request"]


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of the fields of a request. All names are OpenAI's."""

    only: tuple[str, ...] = ()  # fields that the vendor knows (after renaming); others are left out. (): any
    drop: tuple[str, ...] = ()  # left out
    refuse: tuple[str, ...] = ()  # 400, unless the value asks for nothing: null, false, 0, [], n of 1
    refuse_values: dict[str, tuple[str, ...]] = {}  # 400 for these words
    rename: dict[str, str] = {}
    words: dict[str, dict[str, str]] = {}  # field → words of OpenAI's and what they are there
    clamp: dict[str, Range] = {}
    default: dict[str, Any] = {}  # where the client sends none
    call_ids: int = 0  # ids of tool calls must be so many letters and digits; 0: any
    stream_only: bool = False  # a plain request is sent as a stream, and its answer collected
    path: str = "/chat/completions"


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """One vendor. With a ``{word}`` in ``base_url`` the channel must give one."""

    base_url: str
    key: bool = True  # wants one
    stream_usage: Literal["ask", "given", "refused"] = "ask"
    rules: Rules = Rules()
    models: dict[str, Rules] = {}  # regular expression of the vendor's names → its rules; the first counts
    finish: dict[str, str] = {}  # the vendor's finish reasons → OpenAI's
    stops_at_calls: bool = False  # it says stop where tools were called, which is no end of a turn
    codes: dict[str, Meaning] = {}  # codes or types of errors
    phrases: dict[str, Meaning] = {}  # within the words of an error
    timeouts: TimeoutsPatch = TimeoutsPatch()
    lists: bool = True  # is there a list of models?
    list_prefix: str = ""  # that its list puts before each name
    note: str = ""


# fmt: off
_MISTRAL = (
    "model", "messages", "temperature", "top_p", "max_tokens", "stream", "stop", "random_seed", "metadata",
    "response_format", "tools", "tool_choice", "presence_penalty", "frequency_penalty", "n", "prediction",
    "parallel_tool_calls", "prompt_mode", "reasoning_effort", "safe_prompt", "guardrails",
)
# fmt: on
_AT_HOME = TimeoutsPatch(first_token_s=300)  # a cold model is loaded first

OVERSEAS = {
    "openai": Preset(
        base_url="https://api.openai.com/v1",
        models={
            r"(ft:)?(gpt-5|o\d)(?!.*chat)(?!\.)(-.*)?": Rules(
                rename={"max_tokens": "max_completion_tokens"},
                clamp={"temperature": Range(min=1, max=1)},
                drop=("top_p", "presence_penalty", "frequency_penalty"),
            ),
            r"(ft:)?gpt-5.*": Rules(rename={"max_tokens": "max_completion_tokens"}),
        },
    ),
    "mistral": Preset(
        base_url="https://api.mistral.ai/v1",
        stream_usage="given",
        rules=Rules(
            only=_MISTRAL,
            rename={"seed": "random_seed", "max_completion_tokens": "max_tokens"},
            words={"tool_choice": {"required": "any"}},
            refuse=("logprobs",),
            call_ids=9,
        ),
        finish={"model_length": "length"},
    ),
    "groq": Preset(
        base_url="https://api.groq.com/openai/v1",
        rules=Rules(refuse=("n", "logprobs", "top_logprobs"), drop=("logit_bias",)),
    ),
    "xai": Preset(
        base_url="https://api.x.ai/v1",
        models={
            r"(?!.*non-reasoning)grok-(4|3-mini|code).*": Rules(
                refuse=("stop",), drop=("presence_penalty", "frequency_penalty")
            )
        },
    ),
    "openrouter": Preset(
        base_url="https://openrouter.ai/api/v1",
        codes={"402": "quota"},
        note="models are vendor/model; HTTP-Referer and X-Title go into headers",
    ),
    "together": Preset(base_url="https://api.together.xyz/v1", finish={"eos": "stop"}),
    "cohere": Preset(base_url="https://api.cohere.ai/compatibility/v1", stream_usage="refused"),
    "gemini-openai": Preset(
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        phrases={"API key not valid": "auth", "API key expired": "auth"},
        stops_at_calls=True,
        list_prefix="models/",
        note="thought signatures are in extra_content of tool calls: send the message back as it came",
    ),
    "perplexity": Preset(
        base_url="https://api.perplexity.ai",
        rules=Rules(refuse=("tools",)),
        lists=False,
        note="citations come as a field of the answer; it has no tools",
    ),
    "novita": Preset(base_url="https://api.novita.ai/v3/openai"),
    "cloudflare": Preset(
        base_url="https://api.cloudflare.com/client/v4/accounts/{account}/ai/v1",
        lists=False,
        note="base_url names your account; models are @cf/…",
    ),
    "bedrock-openai": Preset(
        base_url="https://bedrock-runtime.{region}.amazonaws.com/openai/v1",
        lists=False,
        note="base_url names your region; the key is a Bedrock API key",
    ),
}

CHINA = {
    "deepseek": Preset(
        base_url="https://api.deepseek.com/v1",
        note="reasoning_content must come back with a message that called tools",
    ),
    "moonshot": Preset(
        base_url="https://api.moonshot.cn/v1",
        rules=Rules(clamp={"temperature": Range(min=0, max=1)}, refuse_values={"tool_choice": ("required",)}),
        codes={"engine_overloaded_error": "busy", "exceeded_current_quota_error": "quota"},
        note="abroad: https://api.moonshot.ai/v1",
    ),
    "zhipu": Preset(
        base_url="https://open.bigmodel.cn/api/paas/v4",
        rules=Rules(clamp={"temperature": Range(min=0.01, max=0.99), "top_p": Range(min=0.01, max=0.99)}),
        finish={"sensitive": "content_filter"},
        codes={"1113": "quota", "1301": "content", "1302": "busy", "1305": "busy", "1261": "length"},
        lists=False,
        note="abroad: https://api.z.ai/api/paas/v4. The key as it is; no token is made of it",
    ),
    "qwen": Preset(
        base_url="https://dashscope.aliyuncs.com/compatible-mode/v1",
        models={r"(qwq|qvq).*|qwen3-\d+(\.\d+)?b.*": Rules(stream_only=True)},
        codes={"data_inspection_failed": "content", "Arrearage": "quota"},
        note="abroad: dashscope-intl.aliyuncs.com/compatible-mode/v1; models that only stream are collected",
    ),
    "qianfan": Preset(
        base_url="https://qianfan.baidubce.com/v2",
        note="the key is bce-v3/…; an application's id goes into headers: {appid: …}",
    ),
    "hunyuan": Preset(
        base_url="https://api.hunyuan.cloud.tencent.com/v1", finish={"sensitive": "content_filter"}
    ),
    "360": Preset(base_url="https://api.360.cn/v1"),
    "doubao": Preset(
        base_url="https://ark.cn-beijing.volces.com/api/v3",
        models={r"bot-.*": Rules(path="/bots/chat/completions")},
        lists=False,
        note="a model is a name or an endpoint ep-…; bot-… goes to its own path",
    ),
    "minimax": Preset(
        base_url="https://api.minimaxi.com/v1",
        rules=Rules(rename={"max_tokens": "max_completion_tokens"}, default={"reasoning_split": True}),
        codes={
            "1002": "rate",
            "1004": "auth",
            "1008": "quota",
            "1026": "content",
            "1027": "content",
            "1039": "length",
            "2013": "request",
        },
        lists=False,
        note="abroad: https://api.minimax.io/v1",
    ),
    "siliconflow": Preset(base_url="https://api.siliconflow.cn/v1"),
    "stepfun": Preset(base_url="https://api.stepfun.com/v1"),
    "baichuan": Preset(base_url="https://api.baichuan-ai.com/v1"),
    "lingyiwanwu": Preset(base_url="https://api.lingyiwanwu.com/v1"),
    "spark-http": Preset(
        base_url="https://spark-api-open.xf-yun.com/v1",
        stream_usage="refused",  # it tells of usage unasked, and stream_options is none of its fields
        rules=Rules(
            drop=("seed", "logprobs", "top_logprobs", "logit_bias"),
            refuse=("n",),
            rename={"max_completion_tokens": "max_tokens"},
        ),
        models={r"spark-x2\.5.*": Rules(rename={"max_tokens": "max_completion_tokens"})},
        lists=False,
        note="X1.5: …/v2, X2: …/x2; errors by Spark's own codes, see spark.md",
    ),
}

AT_HOME = {
    "ollama": Preset(
        base_url="http://127.0.0.1:11434/v1",
        key=False,
        timeouts=_AT_HOME,
        note="its own kind, ollama, can set num_ctx and keep_alive too",
    ),
    "vllm": Preset(base_url="http://127.0.0.1:8000/v1", key=False),
    "lmstudio": Preset(base_url="http://127.0.0.1:1234/v1", key=False, timeouts=_AT_HOME),
    "llamacpp": Preset(
        base_url="http://127.0.0.1:8080/v1",
        key=False,
        timeouts=_AT_HOME,
        codes={"unavailable_error": "loading"},
    ),
}

PRESETS: dict[str, Preset] = OVERSEAS | CHINA | AT_HOME
_NONE = Preset(base_url="")
_AZURE = Preset(base_url="", models=OVERSEAS["openai"].models)


def preset_of(channel: Channel) -> Preset:
    """The preset that a channel names; else what is known of OpenAI's models for ``azure``, or nothing."""
    if channel.preset is not None:
        return PRESETS[channel.preset]
    return _AZURE if channel.kind == "azure" else _NONE


def preset_at(base_url: str) -> str | None:
    """The preset of the vendor that answers at this address; None if it is none of them."""
    try:
        host = urlsplit(base_url).hostname
    except ValueError:  # a bracket that is not closed: whoever checks addresses tells so
        return None
    known = (OVERSEAS | CHINA).items()
    return next((name for name, preset in known if urlsplit(preset.base_url).hostname == host), None)


def timeouts_of(channel: Channel) -> TimeoutsPatch:
    """What is said of its clocks: by the channel itself, else by its preset or kind."""
    kind = _AT_HOME if channel.kind == "ollama" else TimeoutsPatch()
    return channel.timeouts.over(preset_of(channel).timeouts.over(kind))


def base_url_of(channel: Channel) -> str:
    """Where the channel's server is, without a slash at the end."""
    return (channel.base_url or preset_of(channel).base_url).rstrip("/")


def usage_of(channel: Channel) -> Literal["ask", "given", "refused"]:
    """How usage is had from its streams."""
    return channel.stream_usage or preset_of(channel).stream_usage


def takes_json(channel: Channel) -> bool:
    """Do its vendor's pages promise ``response_format: json_object``, or what it is made into?"""
    return channel.kind in ("gemini", "ollama") or channel.preset in ("openai", "deepseek", "mistral")


def table() -> str:
    """All presets as a table in Markdown, from the data alone."""
    lines = ["| preset | address | rules |", "|---|---|---|"]
    for name, preset in PRESETS.items():
        said = [*_in_words(preset.rules)]
        for pattern, rules in preset.models.items():
            said += [f"`{pattern.replace('|', chr(92) + '|')}`: {', '.join(_in_words(rules))}"]
        said += [f"finish `{theirs}` is `{ours}`" for theirs, ours in preset.finish.items()]
        if preset.stops_at_calls:
            said.append("finish `stop` is `tool_calls` where tools were called")
        said += [f"error `{code}`: {meaning}" for code, meaning in (preset.codes | preset.phrases).items()]
        if preset.stream_usage != "ask":
            said.append(f"`stream_usage: {preset.stream_usage}`")
        if preset.timeouts.first_token_s is not None:
            said.append(f"`first_token_s: {preset.timeouts.first_token_s:g}`")
        if not preset.key:
            said.append("no key")
        said += [preset.note] if preset.note else []
        lines.append(f"| `{name}` | `{preset.base_url}` | {'; '.join(said)} |")
    return "\n".join(lines)


def _in_words(rules: Rules) -> list[str]:
    said = [
        f"{', '.join(f'`{name}`' for name in names)} {what}"
        for what, names in (("left out", rules.drop), ("refused", rules.refuse))
        if names
    ]
    if rules.only:
        said.append("fields that it does not know left out")
    said += [f"`{field}: {word}` refused" for field, words in rules.refuse_values.items() for word in words]
    said += [f"`{ours}` is `{theirs}`" for ours, theirs in rules.rename.items()]
    said += [
        f"`{field}: {ours}` is `{theirs}`"
        for field, words in rules.words.items()
        for ours, theirs in words.items()
    ]
    said += [
        f"`{name}` is {one.min:g}" if one.min == one.max else f"`{name}` within {one.min:g} and {one.max:g}"
        for name, one in rules.clamp.items()
    ]
    said += [
        f"`{name}: {msgspec.json.encode(value).decode()}` unless given"
        for name, value in rules.default.items()
    ]
    if rules.call_ids:
        said.append(f"ids of tool calls of {rules.call_ids} letters")
    if rules.stream_only:
        said.append("always asked for a stream")
    if rules.path != "/chat/completions":
        said.append(f"at `{rules.path}`")
    return said
