"""Assembles a reply from its uploaded objects.

An object names its parts by their hashes, so a small upload can describe a huge reply: an array may repeat one chunk a
million times. The total size of the arrays is therefore computed before Flower assembles them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from flwr.app import Array, Message

from server.flower_internals import (
    get_object_body,
    get_object_head_values_from_object_content,
    inflate_object_from_contents,
)


class TooLarge(ValueError):
    """The arrays of a reply exceed its limit."""


def read_reply(root: str, contents: Mapping[str, bytes], most_bytes: int) -> Message:
    """The reply whose message is the object `root`. Raises TooLarge if its arrays exceed `most_bytes`.

    The objects are untrusted and may raise anything in Flower's reader: catch Exception.
    """
    total = sum(_array_bytes(content, contents) for content in contents.values())
    if total > most_bytes:
        raise TooLarge(f"its arrays have {total} bytes, and at most {most_bytes} are allowed")
    found = inflate_object_from_contents(root, dict(contents))
    if not isinstance(found, Message) or not found.has_content():
        raise TypeError("not a message with content")
    return found


def _array_bytes(content: bytes, contents: Mapping[str, bytes]) -> int:
    """Bytes of the array that `content` describes by its chunks; 0 for any other object."""
    kind, chunks, _ = get_object_head_values_from_object_content(content)
    if kind != Array.__qualname__:
        return 0
    order = json.loads(get_object_body(content, Array))["arraychunk_ids"]
    return sum(len(contents[chunks[number]]) for number in order)
