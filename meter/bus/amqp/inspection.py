"""Looking at a broker without changing anything that outlives the connection: version, permissions, queues, certificate."""

from __future__ import annotations

import uuid
from datetime import UTC
from datetime import datetime
from typing import Any
from typing import NamedTuple

from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.interfaces import IStreamClientEndpoint
from txamqp.content import Content

from meter.bus.amqp.channel import ACCESS_REFUSED
from meter.bus.amqp.channel import NOT_FOUND
from meter.bus.amqp.channel import PRECONDITION_FAILED
from meter.bus.amqp.channel import ChannelLost
from meter.bus.amqp.client import Client
from meter.bus.amqp.client import open_client
from meter.bus.amqp.hosts import BrokerHosts
from meter.bus.amqp.hosts import broker_addresses
from meter.bus.amqp.topology import EXCHANGE
from meter.bus.amqp.url import BrokerAddress
from meter.daemon.services import within
from meter.interfaces import Unavailable

CLOSE_SECONDS = 2.0

QUEUE_PREFIX = "meter.inspection-"
"""Names of the exclusive queues that are declared to find out what the user may do."""


class QueueState(NamedTuple):
    """Messages of a queue that are ready to be delivered, and its consumers."""

    messages: int
    consumers: int


class BrokerInspection:
    """One connection to the RabbitMQ at ``url``, which declares nothing but exclusive queues.

    Every method raises :class:`~meter.interfaces.Unavailable` if the broker does not answer within ``answer_seconds``.
    """

    def __init__(self, reactor: Any, url: str, *, clock: IReactorTime, name: str, answer_seconds: float = 10.0) -> None:
        addresses = broker_addresses(url)
        self._hosts = BrokerHosts.of(reactor, addresses)
        self.address = addresses[0]
        self._clock = clock
        self._name = name
        self._answer_seconds = answer_seconds
        self._client: Any = None

    async def open(self) -> str:
        """Connect to the first host that answers, ``address`` from then on; return product and version: ``RabbitMQ 3.10.8``."""
        try:
            self.address, self._client = await self._hosts.first(self._connected)
        except Unavailable:
            raise
        except Exception as error:
            raise Unavailable(f"{self.address}: {type(error).__name__}: {error}") from error
        return str(self._client.broker)

    async def others_away(self) -> list[str]:
        """Return for each other host of the URL that cannot be used now which one it is and why."""

        async def look(address: BrokerAddress, endpoint: IStreamClientEndpoint) -> str:
            try:
                client = await self._opened(address, endpoint)
            except Exception as error:
                return f"{address.place}: {str(error) or type(error).__name__}"
            await client.close(CLOSE_SECONDS)
            return ""

        others = [Deferred.fromCoroutine(look(*host)) for host in self._hosts if host[0] != self.address]
        return [problem for problem in await gatherResults(others) if problem]

    @property
    def blocked(self) -> str | None:
        """Why the broker blocks publishing, as far as it has told this connection; ``None`` if it does not."""
        reason: str | None = self._client.blocked
        return reason

    @property
    def certificate_ends(self) -> datetime | None:
        """When the broker's certificate ends, ``None`` without TLS."""
        if not self.address.tls:
            return None
        certificate: x509.Certificate = self._client.transport.getPeerCertificate().to_cryptography()
        return certificate.not_valid_after_utc.astimezone(UTC)

    async def queue(self, name: str) -> QueueState | None:
        """Return the state of a queue, ``None`` if there is none."""
        try:
            declared = await self._on_channel(lambda channel: channel.queue_declare(queue=name, passive=True))
        except ChannelLost as lost:
            if lost.code == NOT_FOUND:
                return None
            raise
        return QueueState(int(declared.message_count), int(declared.consumer_count))

    async def missing_permissions(self) -> list[str]:
        """Return what the user may not do in the virtual host, as clauses; empty if all that Meter needs is permitted.

        No message is published: RabbitMQ checks the permission first, and then refuses the ``user-id``, which is not the user's.
        """
        missing = []
        name = f"{QUEUE_PREFIX}{uuid.uuid4().hex}"
        if not await self._permitted(lambda channel: channel.queue_declare(queue=name, exclusive=True)):
            missing.append(f"configure queues ({name[:16]}…)")
        elif not await self._permitted(lambda channel: channel.basic_get(queue=name, no_ack=True)):
            missing.append(f"read queues ({name[:16]}…)")
        for exchange, shown in ((EXCHANGE, EXCHANGE), ("", "amq.default")):
            if await self._may_write(exchange) is False:
                missing.append(f"write to the exchange {shown}")
        return missing

    async def _may_write(self, exchange: str) -> bool | None:
        """Return whether the user may publish to ``exchange``; ``None`` if there is no such exchange."""
        content = Content(b"", properties={"user-id": f"not {self.address.user}"})

        async def publish(channel: Any) -> None:
            channel.basic_publish(exchange=exchange, routing_key=QUEUE_PREFIX, content=content)
            await channel.basic_qos(prefetch_count=1)  # answered after the publication was checked

        try:
            await self._on_channel(publish)
        except ChannelLost as lost:
            if lost.code == NOT_FOUND:
                return None
            if lost.code not in (ACCESS_REFUSED, PRECONDITION_FAILED):
                raise
            return lost.code == PRECONDITION_FAILED
        return True

    async def _permitted(self, ask: Any) -> bool:
        try:
            await self._on_channel(ask)
        except ChannelLost as lost:
            if lost.code != ACCESS_REFUSED:
                raise
            return False
        return True

    async def _on_channel(self, ask: Any) -> Any:
        async def work() -> Any:
            async with self._client.temporary_channel(CLOSE_SECONDS) as channel:
                return await ask(channel)

        return await self._limited(work())

    async def close(self) -> None:
        """Disconnect. Works after a failure too, and never raises."""
        if self._client is not None:
            await self._client.close(CLOSE_SECONDS)

    async def _connected(self, address: BrokerAddress, endpoint: IStreamClientEndpoint) -> Any:
        self.address = address
        return await self._opened(address, endpoint)

    async def _opened(self, address: BrokerAddress, endpoint: IStreamClientEndpoint) -> Any:
        return await self._limited(open_client(endpoint, lambda: self._make_client(address)), address)

    def _make_client(self, address: BrokerAddress) -> Client:
        return Client(
            address,
            clock=self._clock,
            connection_name=f"{self._name} inspecting",
            heartbeat_seconds=20,
            max_body_bytes=1024,
            kept_bytes=1024,
        )

    async def _limited(self, work: Any, address: BrokerAddress | None = None) -> Any:
        try:
            return await within(self._clock, self._answer_seconds, work)
        except DeferredTimeout:
            raise Unavailable(f"{address or self.address}: no answer within {self._answer_seconds:g} s") from None
