"""Serving HTTP until a signal, and stopping so that nobody is left without a true answer."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from types import FrameType

import uvicorn
from fastapi import FastAPI

from proxy_service.service import Service
from proxy_service.settings import Settings

log = logging.getLogger(__name__)

LAST_ANSWERS_S = 1
"""How long the answers that the stop gave may take to be sent."""
HARD_STOP_MARGIN_S = 1.5


class Server(uvicorn.Server):
    """Uvicorn that goes on listening while what runs is finished or handed over: what is new gets its 503."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.proxy_host,
                port=settings.proxy_port,
                loop="uvloop",
                http="httptools",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=LAST_ANSWERS_S,
                timeout_keep_alive=75,
            )
        )
        self._app = app
        self._stop_timeout_s = settings.stop_timeout_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; at a second Ctrl-C stop at once."""
        if self.should_exit:
            self.force_exit = self.force_exit or sig == signal.SIGINT
            return
        self.should_exit = True
        # An engine that hangs must not keep the process: its sandboxes are found again by the next proxy.
        watchdog = threading.Timer(self._stop_timeout_s + HARD_STOP_MARGIN_S, os._exit, [1])
        watchdog.daemon = True
        watchdog.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Bring every request to its end, then close the connections and what is behind them."""
        service: Service | None = getattr(self._app.state, "service", None)
        if service is not None and not self.force_exit:
            await service.finish()
        await super().shutdown(sockets)
