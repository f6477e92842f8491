"""What is too large for memory is kept on the disk, within bounds, and leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from server.errors import Overloaded, RequestTooLarge
from server.settings import Uploads
from server.spool import LASTING, STEP_BYTES, Spool, UploadRoom, spool_folder


async def read(spool: Spool, start: int, end: int) -> bytes:
    return b"".join([piece async for piece in spool.pieces(start, end)])


@pytest.mark.parametrize("steps", [1, 40])
async def test_what_was_added_comes_back_from_any_place_as_often_as_asked(tmp_path: Path, steps: int) -> None:
    room = UploadRoom()
    spool = Spool(Uploads(dir=str(tmp_path)), room)
    data = os.urandom(100_001)
    for _ in range(steps):
        await spool.add(data)
    await spool.finish()
    whole = data * steps
    assert spool.size == len(whole)
    assert room.taken == (0 if steps == 1 else len(whole))
    for start, end in ((0, len(whole)), (0, 0), (5, 6), (99_999, len(whole)), (len(whole), len(whole))):
        assert await read(spool, start, end) == whole[start:end]
    spool.close()
    assert room.taken == 0
    assert not os.listdir(tmp_path), "the file has no name"


async def test_one_upload_has_a_bound() -> None:
    spool = Spool(Uploads(max_bytes=10), UploadRoom())
    await spool.add(b"a" * 10)
    with pytest.raises(RequestTooLarge, match="limit of 10 bytes"):
        await spool.add(b"a")
    spool.close()


async def test_all_together_have_one_and_give_their_room_back() -> None:
    room, limits = UploadRoom(), Uploads(all_bytes=3 * STEP_BYTES)
    one, other = Spool(limits, room), Spool(limits, room)
    await one.add(b"a" * 2 * STEP_BYTES)
    with pytest.raises(Overloaded) as raised:
        await other.add(b"a" * 2 * STEP_BYTES)
    assert raised.value.retry_after_s
    other.close()
    assert room.taken == 2 * STEP_BYTES
    one.close()
    third = Spool(limits, room)
    await third.add(b"a" * 2 * STEP_BYTES)
    third.close()
    assert room.taken == 0


async def test_a_disk_that_fails_is_told_without_its_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(Uploads(dir=str(tmp_path / "nowhere")), UploadRoom())
    with pytest.raises(Overloaded) as raised:
        await spool.add(b"a" * STEP_BYTES)
    assert str(tmp_path) not in raised.value.message
    assert "see uploads.dir" in caplog.text
    spool.close()


async def test_a_file_that_shrank_is_no_endless_read(tmp_path: Path) -> None:
    spool = Spool(Uploads(dir=str(tmp_path)), UploadRoom())
    await spool.add(b"a" * STEP_BYTES)
    await spool.finish()
    assert spool._file is not None
    spool._file.truncate(10)
    with pytest.raises(Overloaded):
        await read(spool, 0, STEP_BYTES)
    spool.close()


async def test_without_a_choice_the_file_goes_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert spool_folder() is None
    monkeypatch.delenv("TMPDIR")
    assert spool_folder() in (LASTING, None)
