"""What a caller may send."""

from __future__ import annotations

import pytest

from sessions_app.exceptions import InvalidInput
from sessions_app.limits import check_libraries, check_metadata, check_seconds


@pytest.mark.parametrize(
    "name",
    [
        "numpy",
        "requests==2.32.3",
        "scikit-learn>=1.5,<2",
        "pandas[performance]",
        "Django~=5.2",
        "lodash",
        "@types/node",
        "ruamel.yaml",
        "torch == 2.4.*",
    ],
)
def test_names_that_people_write_pass(name: str) -> None:
    assert check_libraries([name]) == [name]


@pytest.mark.parametrize(
    "name",
    ["", " ", "numpy; rm -rf /", "-r file", "--index-url=x", "a b", "$(id)", "`id`", "a\nb", "a\x00", "x" * 201, "é"],
)
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_libraries([name])
    assert caught.value.field == "libraries"
    caught.value.message.encode("ascii")


def test_metadata_is_flat_text() -> None:
    assert check_metadata({"a": "b"}) == {"a": "b"}
    with pytest.raises(InvalidInput):
        check_metadata({"a": {"b": "c"}})  # type: ignore[dict-item]


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), 11, float("inf")])
def test_a_duration_is_positive_and_below_its_ceiling(seconds: float) -> None:
    with pytest.raises(InvalidInput):
        check_seconds("timeout", seconds, ceiling=10)
