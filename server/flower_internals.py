"""All that server/ uses of Flower beyond flwr.app, flwr.clientapp, flwr.serverapp and flwr.simulation.

Flower may change these names in any release. This module checks the version, so that an unsupported Flower is reported
in one sentence and a new release breaks this file only.
"""

from __future__ import annotations

from fedopt.flower_version import flower_imports

with flower_imports():
    from flwr.app.message import make_message, remove_content_from_message
    from flwr.common.constant import (
        FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE,
        NOOP_ACCOUNT_NAME,
        NOOP_FLWR_AID,
        PUBLIC_KEY_HEADER,
        SUPERLINK_NODE_ID,
        ErrorCode,
        SubStatus,
    )
    from flwr.common.serde import message_to_proto
    from flwr.proto.fleet_pb2 import (
        ActivateNodeRequest,
        ActivateNodeResponse,
        PullMessagesRequest,
        PullMessagesResponse,
        PushMessagesRequest,
        PushMessagesResponse,
        RegisterNodeFleetRequest,
        RegisterNodeFleetResponse,
    )
    from flwr.proto.fleet_pb2_grpc import add_FleetServicer_to_server
    from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest, SendNodeHeartbeatResponse
    from flwr.proto.message_pb2 import (
        ConfirmMessageReceivedRequest,
        ConfirmMessageReceivedResponse,
        ObjectTree,
        PullObjectRequest,
        PullObjectResponse,
        PushObjectRequest,
        PushObjectResponse,
    )
    from flwr.server.superlink.fleet.grpc_rere.fleet_servicer import FleetServicer
    from flwr.server.superlink.fleet.grpc_rere.node_auth_server_interceptor import NodeAuthServerInterceptor
    from flwr.server.superlink.linkstate import InMemoryLinkState, LinkStateFactory
    from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, NodeStatus, TaskType
    from flwr.supercore.date import now
    from flwr.supercore.error import ApiErrorCode, FlowerError
    from flwr.supercore.fab import Fab
    from flwr.supercore.heartbeat import HeartbeatSender
    from flwr.supercore.inflatable.inflatable_object import (
        get_all_nested_objects,
        get_object_body,
        get_object_head_values_from_object_content,
        get_object_tree,
        is_valid_sha256_hash,
        iterate_object_tree,
        no_object_id_recompute,
    )
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
    from flwr.supercore.interceptors import (
        RpcErrorTranslationServerInterceptor,
        create_fleet_runtime_version_server_interceptor,
    )
    from flwr.supercore.object_store import NoObjectInStoreError, ObjectStoreFactory
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.supercore.utils import get_metadata_bytes
    from flwr.superlink.federation import NoOpFederationManager

__all__ = [
    "FLWR_IN_MEMORY_DB_NAME",
    "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE",
    "NOOP_ACCOUNT_NAME",
    "NOOP_FEDERATION_ID",
    "NOOP_FLWR_AID",
    "PUBLIC_KEY_HEADER",
    "SUPERLINK_NODE_ID",
    "ActivateNodeRequest",
    "ActivateNodeResponse",
    "ApiErrorCode",
    "ConfirmMessageReceivedRequest",
    "ConfirmMessageReceivedResponse",
    "ErrorCode",
    "Fab",
    "FleetServicer",
    "FlowerError",
    "HeartbeatSender",
    "InMemoryLinkState",
    "LinkStateFactory",
    "NoObjectInStoreError",
    "NoOpFederationManager",
    "NodeAuthServerInterceptor",
    "NodeStatus",
    "ObjectStoreFactory",
    "ObjectTree",
    "PullMessagesRequest",
    "PullMessagesResponse",
    "PullObjectRequest",
    "PullObjectResponse",
    "PushMessagesRequest",
    "PushMessagesResponse",
    "PushObjectRequest",
    "PushObjectResponse",
    "RegisterNodeFleetRequest",
    "RegisterNodeFleetResponse",
    "RpcErrorTranslationServerInterceptor",
    "Run",
    "SendNodeHeartbeatRequest",
    "SendNodeHeartbeatResponse",
    "SubStatus",
    "TaskIdentity",
    "TaskType",
    "add_FleetServicer_to_server",
    "create_fleet_runtime_version_server_interceptor",
    "get_all_nested_objects",
    "get_metadata_bytes",
    "get_object_body",
    "get_object_head_values_from_object_content",
    "get_object_tree",
    "inflate_object_from_contents",
    "is_valid_sha256_hash",
    "iterate_object_tree",
    "make_message",
    "message_to_proto",
    "no_object_id_recompute",
    "now",
    "remove_content_from_message",
]
