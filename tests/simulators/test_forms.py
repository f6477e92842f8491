"""The simulators' own reader of forms."""

from __future__ import annotations

import pytest

from server.simulators.errors import Refused
from server.simulators.forms import Field, read_form

BODY = (
    b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nA: b\r\n\r\n\r\n--\0\r\n'
    b"--x--\r\n"
)


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data; boundary=x", 'Multipart/Form-Data; boundary="x"']
)
def test_fields_and_files_are_told_apart(content_type: str) -> None:
    assert read_form(BODY, content_type) == {"model": Field(b"m"), "file": Field(b"\r\n--\0", "a")}


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (BODY, "multipart/form-data", 415),
        (BODY, "application/json; boundary=x", 415),
        (BODY, "multipart/form-data; boundary=y", 400),
        (BODY[:-4], "multipart/form-data; boundary=x", 400),
        (b"--x\r\n\r\nno name\r\n--x--", "multipart/form-data; boundary=x", 400),
        (b'--x\r\nname="a"\r\n--x--', "multipart/form-data; boundary=x", 400),
    ],
)
def test_what_is_no_form_is_refused(body: bytes, content_type: str, status: int) -> None:
    with pytest.raises(Refused) as refused:
        read_form(body, content_type)
    assert refused.value.fault.status == status
