"""The Django project: settings, URLs and the ASGI application."""

from __future__ import annotations

__version__ = "0.1.0"
