"""Which files are artifacts: pictures, tables and documents, told by their names."""

from __future__ import annotations

CONTENT_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "svg": "image/svg+xml",
    "pdf": "application/pdf",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "parquet": "application/vnd.apache.parquet",
    "html": "text/html",
}
# What a browser may show beside this server's own pages: nothing that could hold a script.
SHOWN_IN_PLACE = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


def content_type(path: str) -> str | None:
    """Return the type of a file that is an artifact; None for all others."""
    name, dot, suffix = path.rpartition(".")
    return CONTENT_TYPES.get(suffix.lower()) if dot and name else None
