"""Answers held against the OpenAPI schema of the server that gave them."""

from __future__ import annotations

import re
from typing import Any

from jsonschema import Draft202012Validator


def lies_of(schema: dict[str, Any], method: str, path: str, status: int, body: Any) -> list[str]:
    """Return where an answer is not what the OpenAPI schema says."""
    # An address without parameters goes before one with, a longer one before a shorter one.
    for template in sorted(schema["paths"], key=lambda one: (one.count("{"), -len(one))):
        last = template.endswith("/files/{path}")
        pattern = re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(template)) if not last else "/sessions/[^/]+/files/.+"
        if re.fullmatch(pattern, path):
            break
    else:
        return ["is not in the schema"]
    said = schema["paths"][template][method.lower()]["responses"].get(str(status))
    if said is None or "application/json" not in said.get("content", {}):
        return [f"{template} does not say that it answers so"]
    shape = {**said["content"]["application/json"]["schema"], "components": schema["components"]}
    found = [f"{error.json_path}: {error.message}" for error in Draft202012Validator(shape).iter_errors(body)]
    return found + undescribed(schema, shape, body, "$")


def undescribed(schema: dict[str, Any], shape: dict[str, Any], body: Any, place: str) -> list[str]:
    """Return the keys of an answer, at whatever depth, that its shape does not name."""
    if "$ref" in shape:
        return undescribed(schema, schema["components"]["schemas"][shape["$ref"].rsplit("/", 1)[-1]], body, place)
    if isinstance(body, list):
        items = shape.get("items", {})
        return [lie for item in body for lie in undescribed(schema, items, item, f"{place}[]")]
    if not isinstance(body, dict) or "properties" not in shape:
        return []
    known = shape["properties"]
    lies = [f"{place}.{key} is not described" for key in body if key not in known]
    parts = [undescribed(schema, known[key], value, f"{place}.{key}") for key, value in body.items() if key in known]
    return lies + [lie for part in parts for lie in part]
