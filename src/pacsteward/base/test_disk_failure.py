"""Who is told to free space, and who is not."""

from __future__ import annotations

import errno
import os

import pytest

from pacsteward.base.disk_failure import speaking
from pacsteward.base.errors import Exhausted, Unavailable


def fail(number: int) -> None:
    with speaking("Nothing was kept."):
        raise OSError(number, "in words of its own")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_said_to_be_one(number: int) -> None:
    with pytest.raises(Exhausted, match=r"^Nothing was kept\. ") as told:
        fail(number)
    assert os.strerror(number) in told.value.why
    assert "Free space" in told.value.remedy


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EMFILE])
def test_nobody_is_told_to_free_space_when_something_else_is_wrong(number: int) -> None:
    with pytest.raises(Unavailable, match=r"^Nothing was kept\. ") as told:
        fail(number)
    assert os.strerror(number) in told.value.why
    assert "Free space" not in told.value.remedy
