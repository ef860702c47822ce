"""Logs say what they are about."""

from __future__ import annotations

import logging

from proxy_service.logs import WithExtras


def test_what_a_record_is_about_stands_behind_its_message() -> None:
    record = logging.makeLogRecord({"msg": "a sandbox %s", "args": ("died",), "session_id": "s1"})
    assert WithExtras("%(message)s").format(record) == "a sandbox died session_id='s1'"
