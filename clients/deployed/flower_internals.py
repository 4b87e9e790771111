"""All that clients/ uses of Flower beyond flwr.app, flwr.clientapp, flwr.serverapp and flwr.simulation.

Flower may change these names in any release. This module checks the version, so that an unsupported Flower is reported
in one sentence and a new release breaks this file only.
"""

from __future__ import annotations

from fedopt.flower_version import flower_imports

with flower_imports():
    from flwr.app.message import remove_content_from_message
    from flwr.common.constant import PUBLIC_KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, ErrorCode
    from flwr.common.serde import message_to_proto
    from flwr.proto.fleet_pb2 import (
        ActivateNodeRequest,
        DeactivateNodeRequest,
        PullMessagesRequest,
        PushMessagesRequest,
        RegisterNodeFleetRequest,
    )
    from flwr.proto.fleet_pb2_grpc import FleetStub
    from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
    from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
    from flwr.proto.node_pb2 import Node
    from flwr.supercore.date import now
    from flwr.supercore.error import ApiErrorCode, FlowerError
    from flwr.supercore.inflatable.inflatable_object import (
        get_all_nested_objects,
        get_object_tree,
        iterate_object_tree,
        no_object_id_recompute,
    )
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
    from flwr.supercore.interceptors import RuntimeVersionClientInterceptor
    from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes, sign_message

__all__ = [
    "PUBLIC_KEY_HEADER",
    "SIGNATURE_HEADER",
    "TIMESTAMP_HEADER",
    "ActivateNodeRequest",
    "ApiErrorCode",
    "ConfirmMessageReceivedRequest",
    "DeactivateNodeRequest",
    "ErrorCode",
    "FleetStub",
    "FlowerError",
    "Node",
    "PullMessagesRequest",
    "PullObjectRequest",
    "PushMessagesRequest",
    "PushObjectRequest",
    "RegisterNodeFleetRequest",
    "RuntimeVersionClientInterceptor",
    "SendNodeHeartbeatRequest",
    "generate_key_pairs",
    "get_all_nested_objects",
    "get_object_tree",
    "inflate_object_from_contents",
    "iterate_object_tree",
    "message_to_proto",
    "no_object_id_recompute",
    "now",
    "public_key_to_bytes",
    "remove_content_from_message",
    "sign_message",
]
