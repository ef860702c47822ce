"""Speak to the running servers: health, and a first execution through the whole path."""

from __future__ import annotations

import asyncio
import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

REQUEST_TIMEOUT_S = 60.0


class HttpError(Exception):
    """An answer other than 2xx, or none at all (`status` 0)."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text}".strip())
        self.status = status
        self.text = text

    @property
    def detail(self) -> str:
        """The answer's own words, where it has some."""
        try:
            body = json.loads(self.text)
            return f"{body['detail']} {body.get('mend', '')}".strip()
        except (ValueError, TypeError, KeyError):
            return self.text


def request(method: str, url: str, *, key: str = "", body: object = None, timeout_s: float = REQUEST_TIMEOUT_S) -> Any:
    """Send a JSON request and return the JSON answer; never through a proxy of the environment."""
    headers = {"Accept": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    data = None
    if body is not None:
        data = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    call = urllib.request.Request(url, data=data, headers=headers, method=method)  # noqa: S310 - always http
    try:
        with opener.open(call, timeout=timeout_s) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            raise HttpError(error.code, error.read(2000).decode(errors="replace")) from error
    except (OSError, ValueError) as error:
        raise HttpError(0, str(error)) from error


async def wait_until_healthy(
    url: str, timeout_s: float, unable_s: float = math.inf, on_unable: Callable[[str], None] = lambda words: None
) -> dict[str, Any]:
    """Poll a health URL until it answers 200; return the answer.

    A server that runs and says 503 may wait for something that an administrator has to start: `on_unable` gets its
    words when they change, and after `unable_s` the waiting ends.

    Raises:
        TimeoutError: after `timeout_s`, or `unable_s` after the first 503.
    """
    said = ""
    async with asyncio.timeout(timeout_s) as limit:
        while True:
            try:
                answer = await asyncio.to_thread(request, "GET", url, timeout_s=5)
            except HttpError as error:
                if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
                    if not said and (until := asyncio.get_running_loop().time() + unable_s) < (limit.when() or 0):
                        limit.reschedule(until)
                    if error.detail != said:
                        said = error.detail
                        on_unable(said)
                await asyncio.sleep(0.1)
            else:
                return dict(answer)


def first_execution(app_url: str, key: str) -> tuple[str, float]:
    """Run `print(1+1)` through app, proxy and sandbox; return its output and the milliseconds of the request."""
    started = time.perf_counter()
    body = {"lang": "python", "code": "print(1+1)"}
    answer = request("POST", f"{app_url}/sandbox/execute", key=key, body=body)
    elapsed_ms = (time.perf_counter() - started) * 1000
    if answer.get("exit_code") != 0:
        raise HttpError(200, f"status {answer.get('status')}: {answer.get('stderr') or answer.get('error')}")
    return str(answer["stdout"]).strip(), elapsed_ms
