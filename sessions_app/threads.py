"""Work that waits, for the database or the proxy, beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.conf import settings
from django.db import close_old_connections

T = TypeVar("T")

threads = ThreadPoolExecutor(max_workers=settings.APP_THREADS, thread_name_prefix="waiting")


async def in_thread(work: Callable[..., T], *args: Any) -> T:
    """Run `work` on a thread, and leave it no connection to the database."""

    def clean() -> T:
        try:
            return work(*args)
        finally:
            close_old_connections()

    return await asyncio.get_running_loop().run_in_executor(threads, clean)
