"""Speak to the running servers: health, and a first execution through the whole path."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from typing import Any

REQUEST_TIMEOUT_S = 60.0


class HttpError(Exception):
    """An answer other than 2xx, or none at all (`status` 0)."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text}".strip())
        self.status = status


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


async def wait_until_healthy(url: str, timeout_s: float) -> dict[str, Any]:
    """Poll a health URL until it answers; return the answer. Raise TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                answer = await asyncio.to_thread(request, "GET", url, timeout_s=5)
            except HttpError:
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
