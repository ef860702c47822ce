"""The ASGI application: HTTP to Django, WebSockets to channels."""

from __future__ import annotations

import os

import django
from channels.routing import ProtocolTypeRouter  # type: ignore[import-untyped]

from sandboxweb.handler import ThreadedHandler

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sandboxweb.settings")
django.setup(set_prefix=False)

application = ProtocolTypeRouter({"http": ThreadedHandler()})
