"""What the application and each request hold, by typed key: the index of everything shared."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable

from aiohttp import web

from server.accounting import Accounts, Record
from server.auth import Keyring, Principal
from server.kept_responses import KeptResponses
from server.metrics import Metrics
from server.router import ModelRouter
from server.routing.trial import ListModels
from server.run_log import Runs
from server.settings import Settings
from server.spark_ws import Credentials
from server.spool import UploadRoom
from server.tasks import TaskOwner
from server.tickets import Tickets


class Snapshot:
    """The configuration and all that is made from it. A reload puts a new one in its place."""

    __slots__ = ("keyring", "lends", "router", "settings", "trusted_proxies")

    def __init__(self, settings: Settings, router: ModelRouter) -> None:
        self.settings = settings
        self.router = router
        self.lends = bool(router.lent)  # may callers bring credentials of their own?
        self.keyring = Keyring(settings.access, time.time)
        self.trusted_proxies = tuple(
            ipaddress.ip_network(address, strict=False) for address in settings.access.trusted_proxies
        )


class Current:
    """Holds the snapshot in force, from the application's start on.

    ``make`` builds a snapshot from settings, ``list_models`` asks an upstream what models it has. ``leaving``
    is set when the server is about to drain and is no longer ready; ``draining`` when it drains and refuses
    what is new.
    """

    __slots__ = ("draining", "leaving", "list_models", "make", "snapshot")

    snapshot: Snapshot
    list_models: ListModels
    make: Callable[[Settings], Snapshot]

    def __init__(self) -> None:
        self.leaving = False
        self.draining = False


CURRENT = web.AppKey("current", Current)
RUNS = web.AppKey("runs", Runs)
KEPT_RESPONSES = web.AppKey("kept_responses", KeptResponses)
METRICS = web.AppKey("metrics", Metrics)
ACCOUNTS = web.AppKey("accounts", Accounts)
TICKETS = web.AppKey("tickets", Tickets)
TASKS = web.AppKey("tasks", TaskOwner)
UPLOADS = web.AppKey("uploads", UploadRoom)

SNAPSHOT = web.RequestKey("snapshot", Snapshot)
PRINCIPAL = web.RequestKey("principal", Principal)
CREDENTIALS = web.RequestKey("credentials", Credentials)
"""The caller's own, which stand nowhere else; only requests that brought some have them."""
RECORD = web.RequestKey("record", Record)
