"""A reply, put together from the objects that were uploaded for it.

An object names its parts by their hashes, so that a small upload can describe a large reply: an array may repeat one
chunk a million times. What the arrays amount to is added up before Flower puts them together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from flwr.app import Message
from flwr.app.message import Array
from flwr.supercore.inflatable.inflatable_object import get_object_body, get_object_head_values_from_object_content
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents


class TooLarge(ValueError):
    """The arrays of a reply amount to more than it may bring."""


def read_reply(root: str, contents: Mapping[str, bytes], most_bytes: int) -> Message:
    """The reply whose message is the object `root`; its arrays have at most `most_bytes`.

    The objects come from a stranger, and Flower's reader raises whatever they make it raise: catch Exception.
    """
    total = sum(_array_bytes(content, contents) for content in contents.values())
    if total > most_bytes:
        raise TooLarge(f"its arrays have {total} bytes, where at most {most_bytes} belong")
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
