"""A faithful fake OpenAI upstream on loopback, which does with each request what a script says."""

from __future__ import annotations

import hmac
import re
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime

from server.simulators.answers import (
    chat_answer,
    embeddings_body,
    models_body,
    plain_answer,
    read_embedding_input,
    refusal,
    surface_answer,
)
from server.simulators.asked import read_chat, refuse
from server.simulators.connection import Connection
from server.simulators.errors import Fault, Refused
from server.simulators.moderations import moderations_body, read_moderation_input
from server.simulators.playing import Answer
from server.simulators.record import RecordedRequest
from server.simulators.script import (
    HELP,
    Script,
    script_in_message,
    script_in_model,
)
from server.simulators.simulator import Simulator
from server.simulators.surfaces import READERS

_NAMES = "|".join(("chat/completions", "embeddings", "moderations", *READERS))
_ROUTE = re.compile(rf".*?/({_NAMES}|models(?:/(?P<id>.+))?)")


class OpenAISimulator(Simulator[Script]):
    """An OpenAI upstream: ``async with OpenAISimulator() as sim`` serves until the block is left.

    Its behaviour is chosen for each request, in this order: the queue (``script``, or POST /sim/script), the
    header ``x-sim``, the model's name (one of ``models``, or spelled as HELP says), a line ``sim: {…}`` in
    the last user message, ``default``. A request that OpenAI would refuse is refused before any of them.

    Any base URL is served: only the end of the path counts. Leaving the block closes every connection.
    """

    scripts = Script
    routes = ("chat/completions", "embeddings", "moderations", *READERS, "models")
    help = HELP
    title = "An OpenAI upstream"
    default_port = 18901

    def __init__(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        api_key: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        models: Mapping[str, Script] | None = None,
        default: Script | None = None,
    ) -> None:
        """``port`` 0 takes a free one. ``models``: named behaviours, which /v1/models lists."""
        super().__init__(port, host, default, ssl_context)
        self.models = dict(models or {})
        self._api_key = api_key

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes for its base URL."""
        return f"{self.url}/v1"

    @property
    def where(self) -> str:
        """The base URL."""
        return self.base_url

    def _refusal(self, record: RecordedRequest, fault: Fault) -> Answer:
        return refusal(record.script, fault, record.number, datetime.now(UTC))

    async def _chosen(self, record: RecordedRequest, path: str, connection: Connection) -> Answer:
        found = _ROUTE.fullmatch(path)
        if found is None:
            raise Refused(Fault(404, f"Invalid URL ({record.method} {path})"))
        route = found[1].split("/")[0] if found[1].startswith("models") else found[1]
        if record.method != ("GET" if route == "models" else "POST"):
            raise Refused(
                Fault(405, f"Not allowed to {record.method} on {path}.", code="method_not_supported")
            )
        self._authorize(record)
        now = datetime.now(UTC)
        if route == "models":
            record.script = self._script_for(record, route, "", "")
            return plain_answer(
                record.script, lambda: models_body(["sim", *self.models], found["id"]), record.number, now
            )
        if route == "embeddings":
            wanted, record.model = read_embedding_input(record.body)
            record.script = self._script_for(record, route, record.model, "")
            return plain_answer(
                record.script, lambda: embeddings_body(wanted, record.model), record.number, now
            )
        if route == "moderations":
            texts, record.model = read_moderation_input(record.body)
            record.script = self._script_for(record, route, record.model, "")
            return plain_answer(
                record.script,
                lambda: moderations_body(texts, record.model, record.number),
                record.number,
                now,
            )
        if (read := READERS.get(route)) is not None:
            record.model, made = read(record.body, record.header("content-type") or "")
            script = record.script = self._script_for(record, route, record.model, "")
            return surface_answer(script, made, record.number, now)
        asked = read_chat(record.body)
        record.model = asked.model
        record.script = self._script_for(record, route, asked.model, asked.last_user)
        refuse(record.script, asked)
        return chat_answer(record.script, asked, record.number, now)

    def _authorize(self, record: RecordedRequest) -> None:
        if self._api_key is None:
            return
        scheme, _, key = (record.header("authorization") or "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            message = (
                "You didn't provide an API key. Provide it in an Authorization header using Bearer auth."
            )
            raise Refused(Fault(401, message))
        if not hmac.compare_digest(key.strip().encode(), self._api_key.encode()):
            raise Refused(Fault(401, "Incorrect API key provided: sim-****.", code="invalid_api_key"))

    def _script_for(self, record: RecordedRequest, route: str, model: str, last_user: str) -> Script:
        """The script of one request, by the order that the class tells. Raises BadScript."""
        if (found := self._script_at_door(record, route, model)) is not None:
            return found
        if model in self.models:
            return self.models[model]
        if (spelled := script_in_model(model)) is not None and spelled != Script():
            return spelled
        if (said := script_in_message(last_user)) is not None:
            return said
        return self.default
