"""A SuperLink in this process: Flower's link state and object store behind its Fleet API over gRPC.

To nodes it looks like `flower-superlink`. A stock SuperNode that speaks gRPC can join too and gets a bundle of the
app. Because it is part of the server's process, a run starts at once and leaves no process behind.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import io
import socket
import zipfile
from collections.abc import Callable, Mapping
from importlib import metadata
from types import TracebackType

import grpc
import tomli_w

from fedopt.addresses import split_address
from fedopt.errors import InvalidExperiment
from server.call_guard import CallGuard
from server.flower_internals import (
    FLWR_IN_MEMORY_DB_NAME,
    NOOP_ACCOUNT_NAME,
    NOOP_FEDERATION_ID,
    NOOP_FLWR_AID,
    SUPERLINK_NODE_ID,
    Fab,
    HeartbeatSender,
    InMemoryLinkState,
    LinkStateFactory,
    NodeAuthServerInterceptor,
    NoOpFederationManager,
    ObjectStoreFactory,
    RpcErrorTranslationServerInterceptor,
    SubStatus,
    TaskIdentity,
    TaskType,
    add_FleetServicer_to_server,
    create_fleet_runtime_version_server_interceptor,
)
from server.grid import DirectGrid
from server.limits import MessageLimit
from server.links import DirectLink
from server.mailbox import Mailbox
from server.memory import return_large_blocks
from server.refusal_log import RefusalLog
from server.servicer import LongPollServicer
from server.tls import ServerIdentity

THREADS = 4000
"""The most threads, started when needed. Each client holds two."""

OPTIONS = [
    ("grpc.max_concurrent_streams", THREADS),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),  # notices within a minute that a machine is unreachable
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.so_reuseport", 0),  # a port in use is an error, not a port to share
]


class SuperLink:
    """A context manager that serves nodes for one run. With `client_keys`, only nodes with these keys may join."""

    def __init__(
        self,
        listen: str,
        identity: ServerIdentity | None,
        client_keys: Mapping[int, bytes] | None,
        report: Callable[[str], None],
        vector_bytes: int,
    ) -> None:
        """`vector_bytes` is the size of the model's flat vector, from which the limits of messages follow."""
        check_free(listen)
        self._mailbox = Mailbox()
        store = ObjectStoreFactory(FLWR_IN_MEMORY_DB_NAME)
        states = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), store)
        state = states.state()
        assert isinstance(state, InMemoryLinkState)
        self._state = state
        self.owners: dict[int, int] = {
            state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 0): client
            for client, key in (client_keys or {}).items()
        }
        """The client number of each registered node; empty where any node may join."""
        refusals, limit = RefusalLog(report), MessageLimit.of(vector_bytes)
        servicer = LongPollServicer(
            states, authenticates=client_keys is not None, mailbox=self._mailbox, refusals=refusals
        )
        self._server = grpc.server(
            concurrent.futures.ThreadPoolExecutor(THREADS),
            options=[*OPTIONS, ("grpc.max_receive_message_length", limit.largest)],
            maximum_concurrent_rpcs=THREADS,
            interceptors=[
                CallGuard(limit, Uploads(state, self._mailbox), refusals),
                RpcErrorTranslationServerInterceptor(),
                NodeAuthServerInterceptor(states),
                create_fleet_runtime_version_server_interceptor(),
            ],
        )
        add_FleetServicer_to_server(servicer, self._server)
        try:
            self.port: int = (
                self._server.add_insecure_port(listen)
                if identity is None
                else self._server.add_secure_port(listen, identity.credentials())
            )
        except RuntimeError as error:
            raise InvalidExperiment(f"--listen {listen}: the server cannot listen there") from error
        self._task_id, self._run_id = self._begin_run()
        self._heartbeat = HeartbeatSender(lambda: self._state.acknowledge_task_heartbeat(self._task_id))

    def _begin_run(self) -> tuple[int, int]:
        bundle = app_bundle()
        fab_hash = self._state.store_fab(Fab(hashlib.sha256(bundle).hexdigest(), bundle, {}))
        run_id = self._state.create_run(
            fab_id="fedopt/fedopt",
            fab_version=_version(),
            fab_hash=fab_hash,
            override_config={},
            federation_id=NOOP_FEDERATION_ID,
            federation_config=None,
            flwr_aid=NOOP_FLWR_AID,
            primary_task_type=TaskType.SERVER_APP,
        )
        task_id = self._state.get_run_info(run_ids=[run_id])[0].primary_task_id
        assert task_id is not None
        ours = self._state.claim_task(task_id) and self._state.activate_task(task_id)
        assert ours, "a task that was created just now is not claimed by anyone else"
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, SUPERLINK_NODE_ID, task_id
        return task_id, run_id

    @property
    def link(self) -> DirectLink:
        run = self._state.get_run_info(run_ids=[self._run_id])[0]
        return DirectLink(DirectGrid(self._state, run, self._mailbox))

    def __enter__(self) -> SuperLink:
        return_large_blocks()
        self._server.start()
        self._heartbeat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._heartbeat.stop()
        self._state.finish_task(self._task_id, SubStatus.COMPLETED if error is None else SubStatus.FAILED, "")
        self._server.stop(grace=0.5).wait()


class Uploads:
    """Looks up replies by the node's public key. Implements `server.call_guard.Uploads`."""

    def __init__(self, state: InMemoryLinkState, mailbox: Mailbox) -> None:
        self._state, self._mailbox = state, mailbox

    def expected(self, key: bytes) -> bool:
        node = self._state.get_node_id_by_public_key(key)
        return node is not None and self._mailbox.expects_objects(node)

    def reject(self, key: bytes) -> None:
        node = self._state.get_node_id_by_public_key(key)
        if node is not None:
            self._mailbox.refuse_from(node, "one of its objects is too large for this model, or broke off")


def check_free(listen: str) -> None:
    """Raises InvalidExperiment unless a server can listen there."""
    host, port = split_address(listen, "--listen")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise InvalidExperiment(f"--listen {listen}: this machine knows no address {host}") from error
    except OSError as error:
        raise InvalidExperiment(f"--listen {listen}: {(error.strerror or str(error)).lower()}") from error


def app_bundle() -> bytes:
    """The app bundle (FAB) for stock SuperNodes. It names the components; the nodes have fedopt installed."""
    project = {
        "project": {"name": "fedopt", "version": _version(), "description": "", "license": "Apache-2.0"},
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "fedopt",
                    "components": {"serverapp": "server.app:app", "clientapp": "clients.app:app"},
                    "config": dict.fromkeys(("experiment", "set", "out", "resume"), ""),
                }
            }
        },
    }
    file, content = "pyproject.toml", tomli_w.dumps(project).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo(file), content)
        line = f"{file},{hashlib.sha256(content).hexdigest()},{len(content) * 8}"
        archive.writestr(zipfile.ZipInfo(".info/CONTENT"), line)
    return buffer.getvalue()


def _version() -> str:
    try:
        return metadata.version("fedopt")
    except metadata.PackageNotFoundError:
        return "0.1.0"  # run from the source tree without installation
