from __future__ import annotations

import os
import socket

from deploy.supervisor import ports
from tests.postgres import free_port


def test_a_port_that_someone_listens_on_is_not_free_and_its_holder_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not ports.is_free("127.0.0.1", port)
        assert ports.holder(port).endswith(f"process {os.getpid()}")
    assert ports.is_free("127.0.0.1", port)


def test_a_free_port_has_no_holder() -> None:
    port = free_port()
    assert ports.is_free("0.0.0.0", port)  # noqa: S104 - only asked for
    assert ports.holder(port) == ""
