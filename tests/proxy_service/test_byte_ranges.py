"""Ranges as the standard says."""

from __future__ import annotations

import pytest

from proxy_service.byte_ranges import Unsatisfiable, wanted_part


def test_a_range_is_read_as_the_standard_says() -> None:
    part = wanted_part("bytes=0-", 5)
    assert part is not None
    assert (part.start, part.length) == (0, 5)
    for whole in (None, "", "bytes=", "bytes=-", "bytes=5-2", "bytes=a-b", "bytes=1-2,3-4", "bytes=٣-"):
        assert wanted_part(whole, 10) is None
    for bad, size in (("bytes=5-", 5), ("bytes=0-", 0), ("bytes=-0", 5)):
        with pytest.raises(Unsatisfiable):
            wanted_part(bad, size)
