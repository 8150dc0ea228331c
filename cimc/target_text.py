"""A machine as TOML text again: what `cimc targets show` prints and a program folder keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic import BaseModel

from cimc.target import Target


def target_text(target: Target, *, defaults: bool = True) -> str:
    """TOML that reads back to the same values; with `defaults` also the values that nobody gave."""
    lines = [f"# {target.name}: {target.spec.summary}"]
    assumed = set(target.assumed_keys()) if defaults else set()
    lines += _lines(target.spec, "", assumed, defaults)
    return "\n".join(lines) + "\n"


def _lines(node: BaseModel, prefix: str, assumed: set[str], defaults: bool) -> Iterator[str]:
    """A table's own values first, its sub-tables after them, as TOML wants it."""
    below: list[tuple[str, BaseModel]] = []
    for key in type(node).model_fields:
        value, given = getattr(node, key), key in node.model_fields_set
        if isinstance(value, BaseModel):
            below.append((key, value))
        elif _holds_tables(value):
            below += [(f"{key}.{name}", child) for name, child in value.items()]
        elif value is not None and (given or (defaults and value not in ("", ()))):
            path = f"{prefix}.{key}" if prefix else key
            mark = "   # assumed" if path in assumed else "" if given else "   # default"
            yield f"{key} = {_toml(value)}{mark}"
    for key, child in below:
        path = f"{prefix}.{key}" if prefix else key
        yield ""
        yield f"[{path}]"
        yield from _lines(child, path, assumed, defaults)


def _holds_tables(value: object) -> bool:
    if not isinstance(value, dict) or not value:
        return False
    return all(isinstance(item, BaseModel) for item in value.values())


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)
