"""For each kind of upstream an answer with every kind of thing in it that the vendor documents.

Each thing bears a mark of its own. ``Mark.told`` are the names under which it may be told to be missing.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

import anthropic.types
from anthropic.types.text_citation import TextCitation
from openai.types.chat import ChatCompletionMessage
from openai.types.chat.chat_completion_chunk import ChoiceDelta

from server.simulators.script import ToolCall
from server.simulators.spark_script import Source

PNG = "iVBORw0KGgo"


@dataclass(frozen=True)
class Mark:
    """Something in an answer: what it can be known by, and the names that stand for it in warnings."""

    by: str
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rich:
    """``script`` has it said. ``covered`` are the kinds of things in it, ``due`` all that the vendor has."""

    script: dict[str, Any]
    marks: tuple[Mark, ...]
    covered: frozenset[str] = frozenset()
    due: frozenset[str] = frozenset()
    plain_only: tuple[Mark, ...] = ()
    streamed_only: tuple[Mark, ...] = ()
    model: str | None = field(default=None)


def picture(name: str) -> str:
    """A data URI that can be told from others."""
    return f"data:image/png;base64,{encoded(name)}"


def encoded(name: str) -> str:
    return PNG + base64.b64encode(name.encode().rjust(9, b"-")).decode()


def _call(name: str) -> ToolCall:
    return ToolCall(name=f"mark-{name}", arguments=f'{{"mark-{name}-argument": 1}}')


CALLED = (Mark("mark-call", ("tool_calls",)), Mark("mark-call-argument", ("tool_calls",)))
SAID = (Mark("mark-text"), Mark("mark-thought", ("thinking", "reasoning")))

OPENAI = Rich(
    script={
        "text": "mark-text is said",
        "refusal": "mark-refusal",
        "reasoning": ("mark-thought",),
        "images": (picture("one"), "https://example.com/mark-link.png"),
        "spoken": "mark-spoken aloud",
        "annotations": (
            {"type": "url_citation", "url_citation": {"url": "https://e.com/mark-source", "title": "t"}},
        ),
        "function_call": _call("legacy"),
        "tools": (_call("call"),),
        "found": {"citations": ["https://e.com/mark-found"], "mark-top": [1]},
        "extras": True,
        "finish": "tool_calls",
    },
    marks=(
        *SAID,
        *CALLED,
        Mark("mark-refusal"),
        Mark(encoded("one"), ("images",)),
        Mark("mark-link"),
        Mark("mark-spoken"),
        Mark("UklGRiQA", ("audio",)),
        Mark("mark-source", ("annotations",)),
        Mark("mark-legacy", ("function_call",)),
        Mark("mark-found", ("annotations",)),
        Mark("mark-top", ("mark-top",)),
        Mark("x_sim", ("x_sim",)),
        Mark("x_choice", ("x_choice",)),
    ),
    plain_only=(Mark("x_message", ("x_message",)),),
    streamed_only=(Mark("x_delta", ("x_delta",)),),
    covered=frozenset(
        "role content refusal annotations audio function_call tool_calls".split()  # noqa: SIM905
    ),
    due=frozenset(ChatCompletionMessage.model_fields) | frozenset(ChoiceDelta.model_fields),
)


def _types_in(union: Any) -> frozenset[str]:
    """The ``type`` of each block that a union of the vendor's package knows."""
    (variants, *_) = union.__args__ if hasattr(union, "__metadata__") else (union,)
    return frozenset(one.model_fields["type"].annotation.__args__[0] for one in variants.__args__)


BLOCKS = _types_in(anthropic.types.ContentBlock)
CITATIONS = _types_in(TextCitation)
_OWN = frozenset({"text", "thinking", "tool_use"})


def _block(kind: str) -> dict[str, Any]:
    """A block of the service's own tools."""
    if kind == "server_tool_use":
        return {"type": kind, "id": "s1", "name": "web_search", "input": {"query": f"mark-{kind}"}}
    if kind == "redacted_thinking":
        return {"type": kind, "data": f"mark-{kind}"}
    if kind == "container_upload":
        return {"type": kind, "file_id": f"mark-{kind}"}
    mark = f"mark-{kind}"
    ran = {"stdout": mark, "stderr": "", "return_code": 0, "content": []}
    page = {"url": mark, "title": "t", "encrypted_content": "Eo", "page_age": None}
    text = {"type": "text", "media_type": "text/plain", "data": "a"}
    contents: dict[str, Any] = {
        "web_search": [{"type": "web_search_result", **page}],
        "web_fetch": {
            "type": "web_fetch_result",
            "url": mark,
            "retrieved_at": None,
            "content": {"type": "document", "source": text},
        },
        "code_execution": {"type": "code_execution_result", **ran},
        "bash_code_execution": {"type": "bash_code_execution_result", **ran},
        "text_editor_code_execution": {
            "type": "text_editor_code_execution_view_result",
            "content": mark,
            "file_type": "text",
        },
        "tool_search": {
            "type": "tool_search_tool_search_result",
            "tool_references": [{"type": "tool_reference", "tool_name": mark}],
        },
    }
    return {"type": kind, "tool_use_id": "s1", "content": contents[kind.removesuffix("_tool_result")]}


def _citation(kind: str) -> dict[str, Any]:
    place = (
        {"url": "https://e.com", "encrypted_index": "Eo"} if kind.startswith("web") else {"source": "shelf"}
    )
    return {"type": kind, "cited_text": f"mark-{kind}", "title": None, **place}


ANTHROPIC = Rich(
    script={
        "text": "first mark-text is cited",
        "reasoning": ("mark-thought",),
        "signature": "mark-signature",
        "blocks": tuple(_block(kind) for kind in sorted(BLOCKS - _OWN)),
        "citations": tuple(_citation(kind) for kind in sorted(CITATIONS)),
        "tools": (_call("call"),),
        "stop_details": {"type": "mark-stop-details"},
        "container": {"id": "mark-container", "expires_at": "2026"},
        "odd": {"type": "mark-odd-event", "mark-odd": 1},
    },
    marks=(
        *SAID,
        *CALLED,
        Mark("mark-signature", ("thinking",)),
        *(Mark(f'mark-{kind}"', (kind,)) for kind in BLOCKS - _OWN),
        *(Mark(f"mark-{kind}", ("annotations", "native_citations")) for kind in CITATIONS),
        Mark("mark-stop-details", ("stop_details",)),
        Mark("mark-container", ("container",)),
    ),
    streamed_only=(Mark("mark-odd-event", ("native_events",)),),
    covered=BLOCKS | CITATIONS,
    due=BLOCKS | CITATIONS,
)

# Of the vendor's reference of ``Part`` and ``Candidate``, which has no package here.
_PARTS = (
    "text thought thoughtSignature inlineData functionCall functionResponse fileData executableCode"
    " codeExecutionResult toolCall toolResponse"
)
_BESIDE = (
    "citationMetadata groundingMetadata urlContextMetadata safetyRatings avgLogprobs finishMessage"
    " groundingAttributions tokenCount"
)
_CHUNK = {"web": {"uri": "https://e.com/mark-grounding", "title": "t"}}
_SUPPORT = {"segment": {"endIndex": 9, "text": "mark-text"}, "groundingChunkIndices": [0]}

GEMINI = Rich(
    script={
        "text": "mark-text is said",
        "reasoning": ("mark-thought",),
        "signature": "mark-call-signature",
        "text_signature": "mark-signature",
        "tools": (_call("call"),),
        "parts": (
            {"inlineData": {"mimeType": "image/png", "data": encoded("two")}},
            {"inlineData": {"mimeType": "audio/L16;rate=24000", "data": "UklGRiQA"}},
            {"inlineData": {"mimeType": "text/csv", "data": encoded("csv")}},
            {"fileData": {"mimeType": "image/png", "fileUri": "https://e.com/mark-image"}},
            {"fileData": {"mimeType": "text/csv", "fileUri": "https://e.com/mark-file"}},
            {"executableCode": {"language": "PYTHON", "code": "print('mark-code')"}},
            {"codeExecutionResult": {"outcome": "OUTCOME_FAILED", "output": "mark-output"}},
            {"functionResponse": {"name": "mark-response", "response": {}}},
            {"toolCall": {"id": "mark-tool-call"}},
            {"toolResponse": {"id": "mark-tool-response"}},
            {"mark-part": {}},
        ),
        "metadata": {
            "groundingMetadata": {
                "webSearchQueries": ["mark-query"],
                "groundingChunks": [_CHUNK],
                "groundingSupports": [_SUPPORT],
            },
            "citationMetadata": {
                "citationSources": [{"uri": "https://e.com/mark-cited", "license": "mark-mit"}]
            },
            "urlContextMetadata": {"urlMetadata": [{"retrievedUrl": "https://e.com/mark-read"}]},
            "safetyRatings": [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "LOW"}],
            "finishMessage": "mark-end",
            "groundingAttributions": [{"sourceId": {}, "content": "mark-attribution"}],
            "avgLogprobs": -0.25,
            "tokenCount": 7,
        },
    },
    marks=(
        *SAID,
        *CALLED,
        Mark("mark-call-signature", ("tool_calls", "extra_content")),
        Mark("mark-signature", ("extra_content",)),
        Mark(encoded("two"), ("images",)),
        Mark("UklGRiQA", ("audio",)),
        Mark(encoded("csv"), ("files",)),
        Mark("mark-image"),
        Mark("mark-file", ("native_parts",)),
        Mark("mark-code"),
        Mark("mark-output"),
        Mark("mark-response", ("native_parts",)),
        Mark("mark-tool-call", ("native_parts",)),
        Mark("mark-tool-response", ("native_parts",)),
        Mark("mark-part", ("native_parts",)),
        Mark("mark-query", ("groundingMetadata",)),
        Mark("mark-grounding", ("annotations",)),
        Mark("mark-cited", ("annotations",)),
        Mark("mark-mit", ("citationMetadata",)),
        Mark("mark-read", ("urlContextMetadata",)),
        Mark("mark-end", ("finishMessage",)),
        Mark("mark-attribution", ("groundingAttributions",)),
    ),
    covered=frozenset(f"{_PARTS} {_BESIDE}".split()),
    due=frozenset(f"{_PARTS} {_BESIDE}".split()),
)

OLLAMA = Rich(
    script={
        "text": "mark-text is said",
        "reasoning": ("mark-thought",),
        "images": (encoded("six"),),
        "tools": (_call("call"),),
        "extras": True,
    },
    marks=(*SAID, *CALLED, Mark(encoded("six"), ("images",)), Mark("x_sim", ("native_fields",))),
)

SPARK = Rich(
    script={
        "text": "mark-text is said",
        "reasoning": ("mark-thought",),
        "sources": (Source("t", "https://e.com/mark-source"),),
    },
    marks=(*SAID, Mark("mark-source", ("annotations",))),
    model="spark-x1",
)

RICH = {
    "openai": OPENAI,
    "azure": OPENAI,
    "anthropic": ANTHROPIC,
    "gemini": GEMINI,
    "ollama": OLLAMA,
    "spark": SPARK,
}
