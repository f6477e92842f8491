"""The settings of a channel of kind spark."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from server.spark_settings import Spark


def test_by_itself_it_searches_nothing_warns_and_lends_nothing() -> None:
    spark = Spark()
    assert (spark.web_search, spark.client_credentials, spark.legacy_fields) == (False, False, False)
    assert (spark.warned, spark.warning_wait_s, spark.models) == ("content_filter", 0.05, {})


@pytest.mark.parametrize(
    "wrong",
    [{"warned": "length"}, {"warning_wait_s": -1}, {"warning_wait_s": 11}, {"unknown": 1}, {"models": []}],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, Spark)
