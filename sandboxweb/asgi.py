"""The ASGI application: HTTP to Django, WebSockets to channels."""

from __future__ import annotations

import os

from channels.routing import ProtocolTypeRouter

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sandboxweb.settings")

from django.core.asgi import get_asgi_application

application = ProtocolTypeRouter({"http": get_asgi_application()})
