"""The other sides: llm-sandbox as it comes, the Docker command line, and Jupyter Kernel Gateway."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.request
import uuid
import warnings
from typing import Any

from llm_sandbox.bubblewrap import BubblewrapSession
from llm_sandbox.docker import SandboxDockerSession
from llm_sandbox.local.config import LocalSandboxConfig

from .stack import bwrap_path, free_port, wait_until


def raw_docker_session(image: str) -> SandboxDockerSession:
    """Return llm-sandbox's own Docker session on `image`, set-up skipped and network off, not yet opened."""
    return SandboxDockerSession(
        image=image,
        lang="python",
        keep_template=True,
        skip_environment_setup=True,
        runtime_configs={"network_mode": "none"},
    )


def raw_bubblewrap_session() -> BubblewrapSession:
    """Return llm-sandbox's own bubblewrap session, set-up skipped, not yet opened."""
    python = os.path.realpath(sys.executable)
    base = sys.base_prefix
    paths = tuple(LocalSandboxConfig().read_only_paths) + (() if base.startswith("/usr") else (base,))
    return BubblewrapSession(
        bwrap_path=bwrap_path(),
        lang="python",
        skip_environment_setup=True,
        sandbox_config=LocalSandboxConfig(python_executable=python, read_only_paths=paths),
    )


def is_two(output: Any) -> bool:
    """Tell whether the output of `print(1+1)` is 2."""
    return bool(output.stdout.strip() == "2")


def check_two(output: Any) -> None:
    """Raise unless the output of `print(1+1)` is 2."""
    if not is_two(output):
        raise RuntimeError(f"llm-sandbox answered {output!r}")


class DockerExec:
    """Run `docker exec … python3 -c` in one bare container."""

    def __init__(self, image: str) -> None:
        """Start the container."""
        self.name = f"bench-{secrets.token_hex(4)}"
        command = ["docker", "run", "-d", "--name", self.name, "--network", "none", "--entrypoint", "sleep"]
        subprocess.run([*command, image, "100000"], check=True, capture_output=True)

    def __call__(self) -> None:
        """Execute `print(1+1)`."""
        command = ["docker", "exec", self.name, "python3", "-c", "print(1+1)"]
        if subprocess.run(command, check=True, capture_output=True).stdout != b"2\n":
            raise RuntimeError("docker exec answered something else than 2")

    def close(self) -> None:
        """Remove the container."""
        subprocess.run(["docker", "rm", "-f", self.name], check=False, capture_output=True)


def docker_run(image: str) -> None:
    """Run `docker run --rm … python3 -c print(1+1)` once."""
    command = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "python3", image, "-c", "print(1+1)"]
    if subprocess.run(command, check=True, capture_output=True).stdout != b"2\n":
        raise RuntimeError("docker run answered something else than 2")


class KernelGateway:
    """Execute in one kernel of a Jupyter Kernel Gateway, over its WebSocket."""

    def __init__(self) -> None:
        """Start the gateway and one kernel, and connect to it."""
        from websockets.sync.client import connect

        self.port = free_port()
        command = [sys.executable, "-m", "kernel_gateway", "--ip=127.0.0.1", f"--port={self.port}"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{self.port}/api/kernels"

        def kernel() -> dict[str, Any] | None:
            request = urllib.request.Request(url, data=b"{}", method="POST")
            try:
                with urllib.request.urlopen(request, timeout=10) as response:
                    return dict(json.load(response))
            except OSError:
                return None

        made = wait_until(kernel, timeout_s=60, what="the kernel gateway")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            address = f"ws://127.0.0.1:{self.port}/api/kernels/{made['id']}/channels"
            self._socket = connect(address, max_size=None)
        self()

    def __call__(self) -> None:
        """Execute `print(1+1)` and wait until the kernel is idle again."""
        sent = uuid.uuid4().hex
        header = {
            "msg_id": sent,
            "username": "",
            "session": sent,
            "msg_type": "execute_request",
            "version": "5.3",
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        content = {"code": "print(1+1)", "silent": False, "store_history": False, "allow_stdin": False}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        self._socket.send(json.dumps(message))
        text = ""
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("parent_header", {}).get("msg_id") != sent:
                continue
            if answer["msg_type"] == "stream":
                text += answer["content"]["text"]
            if answer["msg_type"] == "status" and answer["content"]["execution_state"] == "idle":
                break
        if text != "2\n":
            raise RuntimeError(f"the kernel answered {text!r}")

    def close(self) -> None:
        """Stop the gateway and its kernel."""
        self._socket.close()
        self._process.terminate()
        self._process.wait(20)
