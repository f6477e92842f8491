"""What all tests share: a hypothesis profile without deadlines, since this may be a slow or busy machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


@pytest.fixture
def logging_is_put_back() -> Iterator[None]:
    """What a test sets up of the process's logging is no other test's."""
    loggers = [logging.getLogger(name) for name in (None, "antiphon", "server")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
