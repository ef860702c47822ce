"""Output is cut in its middle, to what its reader asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sessions_app.exceptions import InvalidInput
from sessions_app.limits import MIN_OUTPUT_LIMIT_BYTES, OUTPUT_LIMIT_BYTES
from sessions_app.models import Artifact, Execution, Session
from sessions_app.services.artifacts import open_bytes
from sessions_app.services.executions import complete_execution, settle_execution, start_execution, submit_execution
from sessions_app.services.output import cut, fits, fitted, omitted
from tests.sessions_app.fake_proxy import FakeProxy

MARK = re.compile(r"\n\[… (\d+) bytes omitted[^\n]* …\]\n")


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path) -> None:
    """Keep artifacts in a directory of the test's own."""
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"


def test_text_that_fits_is_left_alone() -> None:
    text = "é" * 50
    assert cut(text, 100) is text
    assert not fits(text, 99)


@pytest.mark.parametrize("letter", ["a", "é", "€", "😀"])
@pytest.mark.parametrize("limit", [256, 257, 258, 259])
def test_head_and_tail_stay_and_every_byte_is_accounted_for(letter: str, limit: int) -> None:
    text = "HEAD" + letter * 1000 + "TAIL"
    short = cut(text, limit)
    head, count, tail = MARK.split(short)
    assert head.startswith("HEAD") and tail.endswith("TAIL")
    assert set(head[4:]) == set(tail[:-4]) == {letter}
    size = len(head.encode()) + len(tail.encode())
    assert size + int(count) == len(text.encode())
    assert limit - 8 < size <= limit


def test_what_the_sandbox_has_left_out_is_counted_too() -> None:
    text = "a" * 1000 + omitted(5_000_000) + "b" * 1000
    short = cut(text, 400)
    assert MARK.findall(short) == [str(5_000_000 + 2000 - 400)]


def test_the_mark_says_where_the_whole_is() -> None:
    assert "\n[… 900 bytes omitted, all of it: /artifacts/1 …]\n" in cut("a" * 1000, 100, whole="/artifacts/1")
    already = "a" * 500 + omitted(1_000_000) + "b" * 500
    assert "\n[… 1000900 bytes omitted, more of it: /artifacts/1 …]\n" in cut(already, 100, whole="/artifacts/1")


def test_columns_without_long_output_stay_as_they_are() -> None:
    values = {"stdout": "a", "exit_code": 0}
    assert fitted(values, 256) == values
    long = {"stdout": "a", "stderr": "b" * 300, "truncated": False}
    assert fitted(long, 256) == {**long, "stderr": cut("b" * 300, 256), "truncated": True}


def test_an_execution_has_its_output_as_it_asked_for_it(session: Session, proxy: FakeProxy) -> None:
    proxy.says = {"fails": ("x" * 500 + "\nModuleNotFoundError: No module named 'yaml'", 1)}
    execution = submit_execution(session=session, code="fails", output_limit_bytes=256, actor="api")
    complete_execution(execution, actor="api")
    kept = Execution.objects.get(pk=execution.pk)
    assert kept.truncated
    assert kept.stderr.startswith("xxx") and kept.stderr.endswith("named 'yaml'")
    assert len(MARK.sub("", kept.stderr)) == 256
    (artifact,) = kept.artifacts
    assert (artifact["name"], artifact["content_type"]) == ("stderr.txt", "text/plain; charset=utf-8")
    assert f"bytes omitted, all of it: {artifact['url']} …]" in kept.stderr
    with open_bytes(Artifact.objects.get(pk=artifact["id"])) as file:
        assert file.read().decode() == proxy.says["fails"][0]
    assert "pyyaml" in kept.hint
    assert proxy.execution(kept).body["output_limit_bytes"] > OUTPUT_LIMIT_BYTES


def test_without_room_for_the_whole_the_result_is_there_all_the_same(
    session: Session, proxy: FakeProxy, settings: Any
) -> None:
    settings.ARTIFACT_QUOTA_BYTES = 100
    proxy.says = {"fails": ("x" * 500, 1)}
    execution = submit_execution(session=session, code="fails", output_limit_bytes=256, actor="api")
    complete_execution(execution, actor="api")
    assert (execution.status, execution.artifacts, execution.truncated) == ("failed", [], True)
    assert MARK.findall(execution.stderr) == ["244"]


def test_the_output_so_far_is_cut_as_well(session: Session, proxy: FakeProxy) -> None:
    execution = submit_execution(session=session, code="wait", output_limit_bytes=300, actor="api")
    start_execution(execution, actor="api")
    proxy.execution(execution).say("stdout", "y" * 1000)
    settle_execution(execution, actor="api")
    assert execution.is_live
    assert MARK.findall(execution.stdout) == ["700"]


@pytest.mark.parametrize("limit", [0, -1, MIN_OUTPUT_LIMIT_BYTES - 1, OUTPUT_LIMIT_BYTES + 1])
def test_a_limit_out_of_bounds_is_refused(session: Session, limit: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        submit_execution(session=session, code="1", output_limit_bytes=limit, actor="api")
    assert refused.value.field == "output_limit_bytes"
    assert session.executions.count() == 0
