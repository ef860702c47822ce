"""How values look in lists and on pages: badges, blocks of code, sizes, durations and links."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince, timeuntil

from sessions_app import clock

COLOURS = {
    "active": "good",
    "succeeded": "good",
    "pending": "busy",
    "running": "busy",
    "queued": "busy",
    "terminating": "busy",
    "in_progress": "busy",
    "failed": "bad",
    "lost": "bad",
    "error": "bad",
    "out_of_memory": "bad",
    "timed_out": "warn",
    "cancelled": "warn",
}
# A browser that is given megabytes to lay out is no help to anybody.
SHOWN_CHARS = 100_000
NOTHING = "-"


def badge(status: str, label: str) -> SafeString:
    """Return a status in its colour."""
    return format_html('<span class="sbx-badge sbx-{}">{}</span>', COLOURS.get(status, "plain"), label)


def block(text: str) -> SafeString:
    """Return text as it would stand in a terminal, with its size; the middle of very long text is left out."""
    if not text:
        return format_html('<span class="sbx-none">{}</span>', "nothing")
    size = filesizeformat(len(text.encode("utf-8", "replace")))
    if len(text) > SHOWN_CHARS:
        half = SHOWN_CHARS // 2
        text = f"{text[:half]}\n\n[… {len(text) - SHOWN_CHARS} characters are not shown …]\n\n{text[-half:]}"
    return format_html('<div class="sbx-block"><span class="sbx-size">{}</span><pre>{}</pre></div>', size, text)


def json_block(value: Any) -> SafeString:
    """Return a JSON value, indented."""
    if not value:
        return format_html('<span class="sbx-none">{}</span>', "nothing")
    return block(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True))


def first_line(text: str, chars: int = 60) -> SafeString:
    """Return the beginning of code, for a list."""
    line = text.strip().split("\n", 1)[0]
    return format_html("<code>{}{}</code>", line[:chars], "…" if len(text.strip()) > len(line[:chars]) else "")


def milliseconds(value: float | None) -> str:
    """Return a duration in the unit that suits it."""
    if value is None:
        return NOTHING
    return f"{value:.1f} ms" if value < 1000 else f"{value / 1000:.2f} s"


def size(value: int | None) -> str:
    """Return a number of bytes in the unit that suits it."""
    return NOTHING if value is None else filesizeformat(value)


def relative(value: datetime | None) -> SafeString | str:
    """Return how long ago, or in how long, with the instant itself on hover."""
    if value is None:
        return NOTHING
    now = clock.now()
    text = f"in {timeuntil(value, now, depth=1)}" if value > now else f"{timesince(value, now, depth=1)} ago"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', value.isoformat(), f"{value:%Y-%m-%d %H:%M:%S %Z}", text
    )


def link_to(model: str, pk: object, label: SafeString | None = None) -> SafeString | str:
    """Return a link to the page of a row of this app, by the beginning of its id unless a label is given."""
    if pk is None:
        return NOTHING
    url = reverse(f"admin:sessions_app_{model}_change", args=[pk])
    return format_html('<a href="{}">{}</a>', url, label or format_html("<code>{}</code>", str(pk)[:8]))
