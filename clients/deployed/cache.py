"""The clients that a process plays, and the data that they share: made once, kept for every order that follows."""

from __future__ import annotations

from collections import OrderedDict

from clients.deployed.client import ClientConfig, FederationClient, FederationData, read_data
from fedopt.data.settings import DataSettings
from fedopt.wire import Hello


class ClientCache:
    """Keeps the clients that were used last, and the data that were read last."""

    def __init__(self, size: int) -> None:
        """`size` is the number of clients to keep. A process that plays only one keeps one, whatever the size."""
        self._size = size
        self._clients: OrderedDict[tuple[Hello, ClientConfig], FederationClient] = OrderedDict()
        self._data: tuple[DataSettings, int, FederationData] | None = None

    def client(self, hello: Hello, config: ClientConfig) -> FederationClient:
        """The client for this hello and config; the one of before if both are unchanged."""
        key = (hello, config)
        if key not in self._clients:
            # A client that is alone needs only its own samples, and no other client needs the rest.
            self._clients[key] = FederationClient(hello, config, read_data if config.alone else self.data)
        self._clients.move_to_end(key)
        while len(self._clients) > (1 if config.alone else self._size):
            self._clients.popitem(last=False)
        return self._clients[key]

    def data(self, settings: DataSettings, seed: int) -> FederationData:
        """The data of the experiment, read once for all clients of this process."""
        if self._data is None or self._data[:2] != (settings, seed):
            self._data = None  # the old ones need not be in memory while the new ones are read
            self._data = settings, seed, read_data(settings, seed)
        return self._data[2]
