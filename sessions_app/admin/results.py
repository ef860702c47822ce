"""Rich results in the admin: what code showed is not to be trusted with an administrator's session."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from sessions_app.admin import columns

MAX_SHOWN = 20
MAX_PICTURE_CHARS = 4 * 1024 * 1024
MAX_HTML_CHARS = 256 * 1024
PICTURES = {"png": "image/png", "jpeg": "image/jpeg"}


def shown_results(results: Sequence[Mapping[str, Any]]) -> SafeString:
    """Return the first results, each by what shows most of it: a picture, a page in a sandbox, or text."""
    if not results:
        return columns.json_block(results)
    shown = format_html_join("", '<div class="sbx-result">{}</div>', ((_shown(item),) for item in results[:MAX_SHOWN]))
    left = len(results) - MAX_SHOWN
    return format_html("{}<p>{} more are not shown.</p>", shown, left) if left > 0 else shown


def _shown(result: Mapping[str, Any]) -> SafeString:
    for key, content_type in PICTURES.items():
        if _is_picture(picture := result.get(key)):
            return format_html('<img src="data:{};base64,{}" alt="" style="max-width: 100%">', content_type, picture)
    page = result.get("html")
    if isinstance(page, str) and len(page) <= MAX_HTML_CHARS:
        # No scripts, no forms, no links out, and no origin: it is shown, and can do nothing.
        return format_html(
            '<iframe sandbox="" srcdoc="{}" style="width: 100%; height: 20em; background: white"></iframe>', page
        )
    text = result.get("text")
    rest = {key: value for key, value in result.items() if key not in PICTURES}
    return columns.block(text) if isinstance(text, str) and text else columns.json_block(rest)


def _is_picture(value: object) -> bool:
    if not isinstance(value, str) or len(value) > MAX_PICTURE_CHARS:
        return False
    try:
        base64.b64decode(value, validate=True)
    except binascii.Error:
        return False
    return bool(value)
