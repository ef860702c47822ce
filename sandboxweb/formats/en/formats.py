"""Instants to the second, in an order that sorts: a diary of milliseconds is no use to the minute."""

from __future__ import annotations

DATETIME_FORMAT = "Y-m-d H:i:s"
DATE_FORMAT = "Y-m-d"
