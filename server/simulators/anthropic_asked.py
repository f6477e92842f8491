"""What a Messages request asks for, refused in Anthropic's words where Anthropic refuses."""

from __future__ import annotations

import re
from typing import Any

from server.simulators.asked import Asked, read_object
from server.simulators.errors import Fault, Refused

_FIELDS = frozenset(
    (
        *(
            "model",
            "messages",
            "max_tokens",
            "system",
            "stream",
            "stop_sequences",
            "temperature",
            "top_p",
            "top_k",
        ),
        *("tools", "tool_choice", "thinking", "output_config", "metadata", "service_tier", "container"),
        *("cache_control", "billing_policy", "compaction", "context_management", "diagnostics"),
        *("fallback_credit_token", "fallbacks", "inference_geo", "mcp_servers", "speed", "thread"),
        *("user_profile_id", "workspace_id"),
    )
)
_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_BLOCKS = {
    "user": ("text", "image", "document", "search_result", "tool_result", "container_upload"),
    "assistant": (
        *("text", "thinking", "redacted_thinking", "tool_use", "server_tool_use", "container_upload"),
        *("web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result"),
        *("bash_code_execution_tool_result", "text_editor_code_execution_tool_result"),
        "tool_search_tool_result",
    ),
}
_ID = re.compile("[a-zA-Z0-9_-]+")
_BAD_ID = "String should match pattern '^[a-zA-Z0-9_-]+$'"
_CHOICES = ("auto", "any", "tool", "none")
_NO_SAMPLING = re.compile(r"opus-(4-([7-9]|1\d)|[5-9])\b")
_FORCED = "Thinking may not be enabled when tool_choice forces tool use."


def read_messages(body: bytes) -> Asked:
    """What a request asks for. Raises Refused for its first fault."""
    asked = read_object(body)
    for name in ("model", "messages", "max_tokens"):
        if name not in asked:
            raise bad(f"{name}: Field required")
    for name in asked:
        if name not in _FIELDS:
            raise bad(f"{name}: Extra inputs are not permitted")
    if not isinstance(asked["model"], str) or not asked["model"]:
        raise bad("model: String should have at least 1 character")
    most = asked["max_tokens"]
    if type(most) is not int or most < 1:
        raise bad(f"max_tokens: {most!r}: Input should be greater than or equal to 1")
    for name in ("temperature", "top_p"):
        value = asked.get(name, 0)
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise bad(f"{name}: range: 0..1")
    if any(not isinstance(stop, str) or not stop.strip() for stop in asked.get("stop_sequences", [])):
        raise bad("stop_sequences: each stop sequence must contain non-whitespace")
    system = _blocks(asked.get("system", []), "system", ("text",))
    turns = _turns(asked["messages"])
    _check_tools(asked)
    _check_thinking(asked)
    if _NO_SAMPLING.search(asked["model"]):
        _check_newer(asked)
    said = [_text(block) for role, blocks in turns for block in blocks if role == "user"]
    last = [blocks for role, blocks in turns if role == "user"][-1:]
    everything = [_text(block) for block in system] + [
        _text(block) for _, blocks in turns for block in blocks
    ]
    return Asked(
        model=asked["model"],
        stream=asked.get("stream") is True,
        include_usage=True,
        n=1,
        logprobs=False,
        prompt_tokens=sum(len(text.split()) for text in everything),
        last_user="\n".join(_text(block) for block in last[0]) if said else "",
        fields=frozenset(asked),
    )


def bad(message: str) -> Refused:
    """A request that is at fault."""
    return Refused(Fault(400, message))


def _turns(messages: object) -> list[tuple[str, list[dict[str, Any]]]]:
    if not isinstance(messages, list) or not messages:
        raise bad("messages: at least one message is required")
    turns: list[tuple[str, list[dict[str, Any]]]] = []
    for at, message in enumerate(messages):
        where = f"messages.{at}"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _BLOCKS:
            raise bad(f'{where}.role: Input should be "user" or "assistant"')
        blocks = _blocks(message.get("content"), f"{where}.content", _BLOCKS[role])
        if not blocks:
            raise bad(f"{where}: all messages must have non-empty content")
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        else:
            turns.append((role, blocks))
    _check_calls(turns)
    role, blocks = turns[-1]
    if role == "assistant" and _text(blocks[-1]) != _text(blocks[-1]).rstrip():
        raise bad("messages: final assistant content cannot end with trailing whitespace")
    return turns


def _blocks(content: object, where: str, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise bad(f"{where}: Input should be a valid list")
    for at, block in enumerate(content):
        here = f"{where}.{at}"
        kind = block.get("type") if isinstance(block, dict) else None
        if kind not in kinds:
            raise bad(
                f"{here}: Input tag '{kind}' found using 'type' does not match any of the expected tags"
            )
        if kind == "text" and not (isinstance(block.get("text"), str) and block["text"].strip()):
            raise bad(f"{here}: text content blocks must contain non-whitespace text")
        if kind in ("image", "document"):
            _check_source(block.get("source"), f"{here}.{kind}.source", kind)
        if kind == "thinking" and not block.get("signature"):
            raise bad(f"{here}.thinking.signature: Field required")
        if kind == "tool_use" and not isinstance(block.get("input"), dict):
            raise bad(f"{here}.tool_use.input: Input should be a valid dictionary")
        if kind == "tool_result":
            inner = ("text", "image", "document", "search_result", "tool_reference")
            _blocks(block.get("content", []), f"{here}.tool_result.content", inner)
        if kind == "search_result":
            for name in ("source", "title"):
                if not isinstance(block.get(name), str):
                    raise bad(f"{here}.search_result.{name}: Field required")
            _blocks(block.get("content"), f"{here}.search_result.content", ("text",))
    return content


def _check_source(source: object, where: str, kind: str) -> None:
    sources = ("base64", "url", "file") if kind == "image" else ("base64", "url", "file", "text", "content")
    if not isinstance(source, dict) or source.get("type") not in sources:
        named = (
            "a base64, url or file source"
            if kind == "image"
            else "a base64, url, file, text or content source"
        )
        raise bad(f"{where}: Input should be {named}")
    if source["type"] == "text" and source.get("media_type") != "text/plain":
        raise bad(f"{where}.text.media_type: Input should be 'text/plain'")
    wanted = _IMAGES if kind == "image" else ("application/pdf",)
    if source["type"] == "base64" and source.get("media_type") not in wanted:
        raise bad(f"{where}.base64.media_type: Input should be {' or '.join(map(repr, wanted))}")


def _check_calls(turns: list[tuple[str, list[dict[str, Any]]]]) -> None:
    open_calls: list[str] = []
    for at, (_, blocks) in enumerate(turns):
        results = [block.get("tool_use_id") for block in blocks if block["type"] == "tool_result"]
        for id in results:
            if id not in open_calls or results.count(id) > 1:
                raise bad(f"messages.{at}: unexpected `tool_use_id` found in `tool_result` blocks: {id}.")
        if missing := [id for id in open_calls if id not in results]:
            raise bad(
                f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(missing)}."
            )
        kinds = [block["type"] for block in blocks]
        if "tool_result" in kinds[len(results) :]:
            raise bad(f"messages.{at}: `tool_result` blocks must come first")
        open_calls = [str(block.get("id")) for block in blocks if block["type"] == "tool_use"]
        if any(not _ID.fullmatch(id) for id in open_calls):
            raise bad(f"messages.{at}.content.tool_use.id: {_BAD_ID}")
    if open_calls:
        raise bad("messages: `tool_use` ids were found without `tool_result` blocks immediately after")


def _check_tools(asked: dict[str, Any]) -> None:
    tools = asked.get("tools", [])
    for at, tool in enumerate(tools):
        if isinstance(tool, dict) and tool.get("type", "custom") != "custom":
            continue  # one of the service's own, of many shapes
        schema = tool.get("input_schema") if isinstance(tool, dict) else None
        if not isinstance(schema, dict) or schema.get("type") != "object":
            raise bad(f"tools.{at}.custom.input_schema.type: Field required")
        if not re.fullmatch("[a-zA-Z0-9_-]{1,128}", str(tool.get("name"))):
            raise bad(f"tools.{at}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
    choice = asked.get("tool_choice")
    if choice is None:
        return
    if not tools:
        raise bad("tool_choice may only be specified while providing tools.")
    if not isinstance(choice, dict) or choice.get("type") not in _CHOICES:
        raise bad(f"tool_choice: Input should be one of {', '.join(_CHOICES)}")
    if choice["type"] == "tool" and choice.get("name") not in [tool["name"] for tool in tools]:
        raise bad(f"Tool '{choice.get('name')}' not found in provided tools")


def _check_newer(asked: dict[str, Any]) -> None:
    """What Opus from 4.7 on refuses."""
    for name in ("temperature", "top_p", "top_k"):
        if name in asked:
            raise bad(f"`{name}` is deprecated for this model.")
    if asked.get("thinking", {}).get("type") == "enabled":
        words = "Use `thinking.type.adaptive` and `output_config.effort` to control thinking behavior."
        raise bad(f"`thinking.type.enabled` is not supported for this model. {words}")


def _check_thinking(asked: dict[str, Any]) -> None:
    thinking = asked.get("thinking", {"type": "disabled"})
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind not in ("enabled", "adaptive", "disabled"):
        raise bad("thinking: Input should be enabled, adaptive or disabled")
    if kind == "disabled":
        return
    if asked.get("temperature", 1) != 1 or "top_k" in asked:
        raise bad("`temperature` may only be set to 1 when thinking is enabled.")
    if asked.get("tool_choice", {}).get("type") in ("any", "tool"):
        raise bad(_FORCED)
    if kind == "enabled":
        budget = thinking.get("budget_tokens")
        if type(budget) is not int or budget < 1024:
            raise bad("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        if budget >= asked["max_tokens"]:
            raise bad("`max_tokens` must be greater than `thinking.budget_tokens`.")


def _text(block: dict[str, Any]) -> str:
    if block["type"] == "tool_result":
        content = block.get("content", "")
        return content if isinstance(content, str) else "\n".join(map(_text, content))
    return str(block.get("text", "")) if block["type"] == "text" else ""
