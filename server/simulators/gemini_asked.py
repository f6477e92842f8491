"""What a generateContent request asks for, refused in Google's words where Google refuses.

The service takes both spellings of a field, ``inlineData`` and ``inline_data``; here they are one.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from server.simulators.asked import Asked, read_object
from server.simulators.errors import Fault, Refused
from server.simulators.gemini_schemas import check_schema

_FIELDS = frozenset(
    (
        *("contents", "systemInstruction", "tools", "toolConfig", "safetySettings", "generationConfig"),
        *("cachedContent", "labels", "model"),
    )
)
_GENERATION = frozenset(
    (
        *("temperature", "topP", "topK", "seed", "maxOutputTokens", "stopSequences", "candidateCount"),
        *("presencePenalty", "frequencyPenalty", "responseMimeType", "responseSchema", "responseJsonSchema"),
        *("responseModalities", "responseLogprobs", "logprobs", "thinkingConfig", "mediaResolution"),
        *("speechConfig", "imageConfig"),
    )
)
_TOOL = frozenset(("functionDeclarations", "googleSearch", "codeExecution", "urlContext", "googleMaps"))
_DECLARATION = frozenset(
    (
        "name",
        "description",
        "parameters",
        "parametersJsonSchema",
        "response",
        "responseJsonSchema",
        "behavior",
    )
)
_DATA = ("text", "inlineData", "fileData", "functionCall", "functionResponse")
_PART = frozenset((*_DATA, "thought", "thoughtSignature", "videoMetadata"))
_MEDIA = re.compile("image/(png|jpeg|webp|heic|heif)|audio/.+|video/.+|text/.+|application/(pdf|json)")
_NAME = re.compile("[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}")
_CATEGORIES = ("HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT", "CIVIC_INTEGRITY")
_THRESHOLDS = ("OFF", "BLOCK_NONE", "BLOCK_ONLY_HIGH", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_LOW_AND_ABOVE")
_SIGNING = re.compile(r"gemini-([3-9]|[1-9]\d)\b")
_UNEQUAL = (
    "Please ensure that the number of function response parts is equal to the number of function call parts "
    "of the function call turn."
)
_UNSIGNED = (
    "Function call is missing a thought_signature in functionCall parts. This is required for tools to work "
    "correctly, and missing thought_signature may lead to degraded model performance. Additional data, "
    "function call `default_api:{name}` , position {position}."
)


def read_generate(body: bytes, model: str, *, stream: bool) -> Asked:
    """What a request to ``model`` asks for. Raises Refused for its first fault."""
    asked = fields_of(read_object(body), _FIELDS, "")
    turns = _turns(asked.get("contents"))
    system = _system(asked.get("systemInstruction"))
    if system and re.search("gemma-[123]-", model):
        raise bad(f"Developer instruction is not enabled for models/{model}")
    generation = _generation(asked.get("generationConfig", {}), model)
    _check_safety(asked.get("safetySettings", []))
    _check_tools(asked)
    _check_calls(turns)
    if _SIGNING.search(model):
        _check_signatures(turns)
    users = [_text_of(parts) for role, parts in turns if role == "user"]
    everything = [_text_of(system), *(_text_of(parts) for _, parts in turns)]
    return Asked(
        model=model,
        stream=stream,
        include_usage=True,
        n=generation.get("candidateCount", 1),
        logprobs=generation.get("responseLogprobs") is True,
        prompt_tokens=sum(len(text.split()) for text in everything),
        last_user=users[-1] if users else "",
        fields=frozenset(asked),
    )


def draws(body: bytes) -> bool:
    """Does a request ask for an image? It is one that ``read_generate`` took."""
    generation = read_object(body).get("generationConfig") or {}
    wanted = generation.get("responseModalities", generation.get("response_modalities")) or ()
    return "IMAGE" in wanted


def bad(message: str, field: str | None = None) -> Refused:
    """A request that is at fault; ``field`` is where."""
    return Refused(Fault(400, message, type="INVALID_ARGUMENT", param=field))


def fields_of(given: object, known: frozenset[str], where: str) -> dict[str, Any]:
    """An object's fields by their names in camel case. Raises Refused for one that is not known."""
    if not isinstance(given, dict):
        raise bad(f"Invalid value at '{where}', {given!r}", where)
    found: dict[str, Any] = {}
    for key, value in given.items():
        first, *rest = key.split("_")
        name = first + "".join(word[:1].upper() + word[1:] for word in rest)
        if name not in known:
            at = f" at '{where}'" if where else ""
            raise bad(f'Invalid JSON payload received. Unknown name "{key}"{at}: Cannot find field.', where)
        found[name] = value
    return found


def _turns(contents: object) -> list[tuple[str, list[dict[str, Any]]]]:
    if not isinstance(contents, list) or not contents:
        raise bad("* GenerateContentRequest.contents: contents is not specified\n", "contents")
    turns: list[tuple[str, list[dict[str, Any]]]] = []
    for at, content in enumerate(contents):
        where = f"contents[{at}]"
        content = fields_of(content, frozenset({"role", "parts"}), where)
        role = content.get("role", "user")
        if role not in ("user", "model"):
            raise bad("Please use a valid role: user, model.", f"{where}.role")
        if turns and turns[-1][0] == role:
            raise bad("Please ensure that multiturn requests alternate between user and model.", where)
        turns.append((role, _parts(content.get("parts"), where)))
    if turns[0][0] != "user":
        raise bad("Please ensure that multiturn requests begin with a user turn.", "contents[0]")
    return turns


def _system(given: object) -> list[dict[str, Any]]:
    if given is None:
        return []
    content = fields_of(given, frozenset({"role", "parts"}), "system_instruction")
    parts = _parts(content.get("parts"), "system_instruction")
    if any("text" not in part for part in parts):
        raise bad("Only text is supported in system instructions.", "system_instruction")
    return parts


def _parts(parts: object, where: str) -> list[dict[str, Any]]:
    if not isinstance(parts, list) or not parts:
        raise bad(f"* GenerateContentRequest.{where}.parts: contents.parts must not be empty.\n", where)
    found = []
    for at, given in enumerate(parts):
        here = f"{where}.parts[{at}]"
        part = fields_of(given, _PART, here)
        data = [kind for kind in _DATA if kind in part]
        if len(data) != 1 or part.get("text") == "":
            raise bad(
                f"* GenerateContentRequest.{here}.data: required oneof field 'data' must have one "
                "initialized field\n",
                here,
            )
        kind = data[0]
        if kind == "text":
            if not isinstance(part["text"], str):
                raise bad(f"Invalid value at '{here}.text' (TYPE_STRING)", f"{here}.text")
        else:
            part[kind] = _CHECKS[kind](part[kind], here)
        found.append(part)
    return found


def _inline(given: object, where: str) -> dict[str, Any]:
    blob = fields_of(given, frozenset({"mimeType", "data"}), f"{where}.inline_data")
    media = str(blob.get("mimeType"))
    if not _MEDIA.fullmatch(media):
        raise bad(f"Unsupported MIME type: {media}", f"{where}.inline_data")
    try:
        base64.b64decode(str(blob.get("data")), validate=True)
    except binascii.Error:
        raise bad(
            f"Invalid value at '{where}.inline_data.data' (TYPE_BYTES), Base64 decoding failed", where
        ) from None
    return blob


def _file(given: object, where: str) -> dict[str, Any]:
    file = fields_of(given, frozenset({"mimeType", "fileUri"}), f"{where}.file_data")
    if not isinstance(file.get("fileUri"), str) or not file["fileUri"]:
        raise bad("* GenerateContentRequest: file_uri must not be empty.\n", f"{where}.file_data")
    return file


def _call(given: object, where: str) -> dict[str, Any]:
    call = fields_of(given, frozenset({"id", "name", "args"}), f"{where}.function_call")
    _check_name(call, f"{where}.function_call")
    if not isinstance(call.get("args", {}), dict):
        raise bad(f"Invalid value at '{where}.function_call.args'", f"{where}.function_call.args")
    return call


def _response(given: object, where: str) -> dict[str, Any]:
    known = frozenset({"id", "name", "response", "parts", "willContinue", "scheduling"})
    response = fields_of(given, known, f"{where}.function_response")
    _check_name(response, f"{where}.function_response")
    if not isinstance(response.get("response"), dict):
        raise bad(f"Invalid value at '{where}.function_response.response'", where)
    return response


_CHECKS = {"inlineData": _inline, "fileData": _file, "functionCall": _call, "functionResponse": _response}


def _check_name(named: dict[str, Any], where: str) -> None:
    if not _NAME.fullmatch(str(named.get("name", ""))):
        raise bad(
            f"* GenerateContentRequest.{where}.name: Invalid function name. Must start with a letter or an "
            "underscore. Must be alphanumeric (a-z, A-Z, 0-9), underscores (_), dots (.), colons (:), or "
            "dashes (-), with a maximum length of 64.\n",
            where,
        )


def _check_calls(turns: list[tuple[str, list[dict[str, Any]]]]) -> None:
    calls: list[dict[str, Any]] = []
    for role, parts in turns:
        responses = [part["functionResponse"] for part in parts if "functionResponse" in part]
        if len(responses) != len(calls):
            raise bad(_UNEQUAL)
        if sorted(one["name"] for one in responses) != sorted(one["name"] for one in calls):
            raise bad("Please ensure that function response names match the function call names.")
        ids = [one["id"] for one in calls if "id" in one]
        if any("id" in one and one["id"] not in ids for one in responses):
            raise bad("Please ensure that function response ids match the function call ids.")
        kinds = ["functionResponse" in part for part in parts]
        if True in kinds[len(responses) :]:
            raise bad("Please ensure that function response parts come before other parts.")
        calls = [part["functionCall"] for part in parts if "functionCall" in part]
        if calls and role != "model":
            raise bad("Please ensure that function call parts stand in a model turn.")
    if calls:
        raise bad(_UNEQUAL)


def _check_signatures(turns: list[tuple[str, list[dict[str, Any]]]]) -> None:
    """Every step since the user last said something needs the signature of its first call."""
    spoken = (at for at, (role, parts) in enumerate(turns) if role == "user" and _text_of(parts))
    last = max(spoken, default=0)
    for at, (_, parts) in enumerate(turns):
        first = next((part for part in parts if "functionCall" in part), None)
        if at > last and first is not None and not first.get("thoughtSignature"):
            raise bad(_UNSIGNED.format(name=first["functionCall"]["name"], position=at + 1))


def _check_tools(asked: dict[str, Any]) -> None:
    names: list[str] = []
    for at, given in enumerate(asked.get("tools", [])):
        tool = fields_of(given, _TOOL, f"tools[{at}]")
        for number, one in enumerate(tool.get("functionDeclarations", [])):
            where = f"tools[{at}].function_declarations[{number}]"
            declared = fields_of(one, _DECLARATION, where)
            _check_name(declared, where)
            if {"parameters", "parametersJsonSchema"} <= declared.keys():
                raise bad("Only one of parameters and parameters_json_schema can be set.", where)
            if "parameters" in declared:
                _checked_schema(declared["parameters"], f"{where}.parameters")
            names.append(declared["name"])
    config = fields_of(
        asked.get("toolConfig", {}), frozenset({"functionCallingConfig", "retrievalConfig"}), "tool_config"
    )
    calling = fields_of(
        config.get("functionCallingConfig", {}),
        frozenset({"mode", "allowedFunctionNames"}),
        "tool_config.function_calling_config",
    )
    mode = calling.get("mode", "AUTO")
    if mode not in ("AUTO", "ANY", "NONE", "VALIDATED"):
        raise bad("Invalid value at 'tool_config.function_calling_config.mode'", "tool_config")
    allowed = calling.get("allowedFunctionNames", [])
    if allowed and mode not in ("ANY", "VALIDATED"):
        raise bad("Allowed function names should be set only when function calling mode is ANY.")
    if unknown := [name for name in allowed if name not in names]:
        raise bad(f"allowed_function_names contains {unknown[0]}, which is not declared.")
    if mode == "ANY" and not names:
        raise bad("Function calling config is set without function_declarations.")


def _generation(given: object, model: str) -> dict[str, Any]:
    config = fields_of(given, _GENERATION, "generation_config")
    for name, low, high in (("temperature", 0, 2), ("topP", 0, 1), ("candidateCount", 1, 8)):
        value = config.get(name, low)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise bad(
                f"* GenerateContentRequest.generation_config.{name}: {value} is not in [{low}, {high}]\n"
            )
    stops = config.get("stopSequences", [])
    if len(stops) > 5 or any(not isinstance(stop, str) or not stop for stop in stops):
        raise bad("* GenerateContentRequest.generation_config.stop_sequences: at most 5 of some text\n")
    shaped = {"responseSchema", "responseJsonSchema"} & config.keys()
    if len(shaped) > 1:
        raise bad("Only one of response_schema and response_json_schema can be set.")
    if shaped and config.get("responseMimeType") != "application/json":
        raise bad("response_schema is only supported with response_mime_type application/json.")
    if "responseSchema" in config:
        _checked_schema(config["responseSchema"], "generation_config.response_schema")
    if "logprobs" in config and config.get("responseLogprobs") is not True:
        raise bad("logprobs can only be set when response_logprobs is true.")
    _check_thinking(config.get("thinkingConfig", {}), model)
    return config


def _check_thinking(given: object, model: str) -> None:
    known = frozenset({"includeThoughts", "thinkingBudget", "thinkingLevel"})
    thinking = fields_of(given, known, "generation_config.thinking_config")
    if {"thinkingBudget", "thinkingLevel"} <= thinking.keys():
        raise bad("You can only set only one of thinking budget and thinking level.")
    levels = ("minimal", "low", "medium", "high")
    if "thinkingLevel" in thinking:
        if not _SIGNING.search(model):
            raise bad("Thinking level is not supported for this model.")
        if str(thinking["thinkingLevel"]).lower() not in levels[1 if "pro" in model else 0 :]:
            raise bad(f"Thinking level {thinking['thinkingLevel']} is not supported for this model.")
    if thinking.get("thinkingBudget") == 0 and "pro" in model:
        raise bad("Budget 0 is invalid. This model only works in thinking mode.")


def _check_safety(settings: list[Any]) -> None:
    for at, given in enumerate(settings):
        where = f"safety_settings[{at}]"
        one = fields_of(given, frozenset({"category", "threshold"}), where)
        if str(one.get("category")).removeprefix("HARM_CATEGORY_") not in _CATEGORIES:
            raise bad(f"Invalid value at '{where}.category'", where)
        if one.get("threshold") not in _THRESHOLDS:
            raise bad(f"Invalid value at '{where}.threshold'", where)


def _checked_schema(schema: object, where: str) -> None:
    if (fault := check_schema(schema, where)) is not None:
        raise bad(fault, where)


def _text_of(parts: list[dict[str, Any]]) -> str:
    return "\n".join(part["text"] for part in parts if "text" in part)
