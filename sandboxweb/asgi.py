"""The ASGI application: HTTP to Django, WebSockets to channels."""

from __future__ import annotations

import gc
import os
from typing import Any

import django
from channels.routing import ProtocolTypeRouter, URLRouter  # type: ignore[import-untyped]

from sandboxweb.backpressure import Backpressure
from sandboxweb.handler import ThreadedHandler

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sandboxweb.settings")
django.setup(set_prefix=False)


def websockets() -> Any:
    """Return the sockets' application, with the users of session cookies."""
    # These have models in them, which are there only now.
    from channels.auth import AuthMiddlewareStack  # type: ignore[import-untyped]

    from sessions_app.routing import websocket_urlpatterns

    return Backpressure(AuthMiddlewareStack(URLRouter(websocket_urlpatterns)))


application = ProtocolTypeRouter({"http": ThreadedHandler(), "websocket": websockets()})

# What is loaded by now stays: the collector need not look through all of it again and again.
gc.collect()
gc.freeze()
