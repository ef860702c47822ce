"""The course of a start: prepare, start proxy, app and reaper, prove that code runs, watch, stop in order."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from deploy.supervisor import client, commands, console, credentials, ports
from deploy.supervisor.commands import StartError
from deploy.supervisor.processes import Service, describe
from deploy.supervisor.settings import Settings

HEALTHY_WITHIN_S = 60.0
UNABLE_FOR_S = 15.0
"""How long a server that runs may say that it lacks something: an engine that starts along with this needs seconds."""
# Together under the 10 s in which a stop has to be over.
APP_STOP_S = 4.0
PROXY_STOP_S = 5.0


class Supervisor:
    """Own the three processes from the first check to the last signal."""

    def __init__(self, settings: Settings, *, verbose: bool = False) -> None:
        self.settings = settings
        self.verbose = verbose
        self.services: list[Service] = []
        self.watchers: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Start everything and stay until a signal comes. Raise StartError when the start fails."""
        loop = asyncio.get_running_loop()
        stop_asked = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop_asked.set)
        with self._only_one():
            asked = asyncio.create_task(stop_asked.wait())
            starting = asyncio.create_task(self._start())
            try:
                await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
                if starting.done():
                    starting.result()
                    await asked
            finally:
                starting.cancel()
                await asyncio.wait({starting})
                await self._stop()

    async def _start(self) -> None:
        """Come up, step by step, until code has run once; afterwards the watchers keep things so."""
        settings = self.settings
        self._check_ports()
        creds = credentials.load_or_make(settings)
        proxy = await self._launch(
            "proxy", ["-m", "proxy_service", "serve"], settings.proxy_environment(creds.proxy_token)
        )
        # The proxy needs no database: it comes up meanwhile.
        await commands.migrate(settings, creds)
        if not creds.api_key:
            creds = await self._make_credentials(creds)
        file = credentials.save(creds, settings)

        where = ["-b", settings.app_host, "-p", str(settings.app_port)]
        server = ["-m", "sandboxweb.server", *where, "sandboxweb.asgi:application"]
        app_environment = settings.app_environment(creds.proxy_token)
        app = await self._launch("app", server, app_environment)
        await self._launch("reaper", ["manage.py", "reap_sessions"], app_environment)
        try:
            health = await self._until_healthy(proxy, settings.proxy_url)
        except StartError:
            # Most often no sandbox can be made here; the check says why, and the mend.
            await commands.check_backend(settings, creds)
            raise
        console.say("sandbox", console.backend(str(health.get("backend")), settings.environment.get("SANDBOX_BACKEND")))
        await self._until_healthy(app, settings.app_url)
        creds = await self._prove(creds)
        self.watchers = [asyncio.create_task(service.keep_running()) for service in self.services]
        sys.stdout.write(console.ways_in(settings, creds, file))
        sys.stdout.flush()

    async def _make_credentials(self, creds: credentials.Credentials) -> credentials.Credentials:
        # Written before they are used: a first start that is interrupted must not leave a user whose password is lost.
        saved_before = (self.settings.data_dir / credentials.FILE_NAME).is_file()
        credentials.save(creds, self.settings)
        creds, is_new = await commands.make_first_user_and_key(self.settings, creds)
        if not is_new:
            console.say("admin", f"user {creds.admin_user} was there before and keeps the password it had")
            if not saved_before:
                creds = replace(creds, admin_password="")
        credentials.save(creds, self.settings)
        return creds

    async def _launch(self, name: str, arguments: list[str], environment: dict[str, str]) -> Service:
        """Start one of the long-lived processes."""
        command = [sys.executable, *arguments]
        service = Service(name, command, environment, self.settings.log_dir, console.say, verbose=self.verbose)
        self.services.append(service)
        await service.start()
        return service

    async def _until_healthy(self, service: Service, url: str) -> dict[str, Any]:
        """Wait for a server's health and return it; give up at once when its process ends."""
        polling = client.wait_until_healthy(
            f"{url}/", HEALTHY_WITHIN_S, UNABLE_FOR_S, lambda words: console.say(service.name, f"waiting: {words}")
        )
        healthy = asyncio.create_task(polling)
        ended = asyncio.create_task(service.ended())
        try:
            await asyncio.wait({healthy, ended}, return_when=asyncio.FIRST_COMPLETED)
            if healthy.done() and not healthy.exception():
                console.say(service.name, f"up on {url}")
                return healthy.result()
            why = describe(ended.result()) if ended.done() else f"no answer within {HEALTHY_WITHIN_S:.0f} s"
            words = f"The {service.name} did not come up ({why}); its log is {service.log_path}:"
            raise StartError(f"{words}\n{service.last_words()}")
        finally:
            healthy.cancel()
            ended.cancel()

    async def _prove(self, creds: credentials.Credentials) -> credentials.Credentials:
        """Run a first execution; a key that this database does not know (another DATABASE_URL) is made anew."""
        url = self.settings.app_url
        try:
            output, elapsed_ms = await asyncio.to_thread(client.first_execution, url, creds.api_key)
        except client.HttpError as error:
            if error.status != 401:
                raise StartError(f"The first execution failed: {error}") from error
            creds = await self._make_credentials(creds)
            output, elapsed_ms = await asyncio.to_thread(client.first_execution, url, creds.api_key)
        console.say("sandbox", f"print(1+1) -> {output}   in {elapsed_ms:.0f} ms, a new sandbox included")
        return creds

    async def _stop(self) -> None:
        """End app and reaper, which use the proxy, then the proxy."""
        if not self.services:
            return
        console.say("", "stopping")
        proxy = [service for service in self.services if service.name == "proxy"]
        others = [service for service in self.services if service.name != "proxy"]
        for watcher in self.watchers:
            watcher.cancel()
        await asyncio.gather(*self.watchers, return_exceptions=True)
        await asyncio.gather(*(service.stop(APP_STOP_S) for service in others))
        await asyncio.gather(*(service.stop(PROXY_STOP_S) for service in proxy))
        console.say("", "stopped")

    def _check_ports(self) -> None:
        settings = self.settings
        for name, host, port in (
            ("APP", settings.app_host, settings.app_port),
            ("PROXY", settings.proxy_host, settings.proxy_port),
        ):
            if not ports.is_free(host, port):
                by = ports.holder(port)
                raise StartError(
                    f"Port {port} is taken{f' by {by}' if by else ''}.\n"
                    f"Stop that, or choose another port: {name}_PORT={port + 1} ./start_all.sh"
                )

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        """Hold a lock on the data directory: two servers on one would fight for it."""
        for folder in (self.settings.data_dir, self.settings.log_dir):
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        path = self.settings.data_dir / "start_all.pid"
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise StartError(
                    f"Sandboxweb runs on {self.settings.data_dir} already (process {file.read().strip() or '?'}).\n"
                    "Stop it, or give this one data and ports of its own: set DATA_DIR, APP_PORT and PROXY_PORT."
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield
