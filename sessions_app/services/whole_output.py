"""Output that is longer than its reader asked for: the whole is kept, and what is left says where."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from sessions_app.exceptions import TooLarge
from sessions_app.models import Artifact, Execution
from sessions_app.services.artifacts import brief, keep_artifact
from sessions_app.services.output import STREAMS, cut, fits

logger = logging.getLogger(__name__)

TEXT = "text/plain; charset=utf-8"


def shortened(execution: Execution, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of an execution's end with its output cut to its limit, and the whole among its artifacts."""
    short = dict(values)
    for stream in STREAMS:
        text = values.get(stream, "")
        if fits(text, execution.output_limit_bytes):
            continue
        artifact = _kept(execution, stream, text)
        if artifact is not None:
            short["artifacts"] = [*short.get("artifacts", ()), brief(artifact)]
        address = f"/artifacts/{artifact.pk}" if artifact is not None else ""
        short[stream] = cut(text, execution.output_limit_bytes, whole=address)
        short["truncated"] = True
    return short


def _kept(execution: Execution, stream: str, text: str) -> Artifact | None:
    """Keep a stream's whole output; the result is worth more than that, so without room there is none."""
    try:
        return keep_artifact(execution=execution, name=f"{stream}.txt", content_type=TEXT, chunks=[text.encode()])
    except (TooLarge, OSError) as error:
        logger.warning("The %s of execution %s is not kept as a whole: %s", stream, execution.pk, error)
        return None
