"""A BMC for tests: documents by path, over HTTPS with basic authentication; and ways in which a BMC can misbehave.

The documents have the form of DMTF's schemas of 2022: ServiceRoot 1.15, Chassis 1.22, EnvironmentMetrics 1.3, Sensor 1.6, and the older Power 1.7.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from twisted.internet.ssl import PrivateCertificate
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.server import Site

from tests.servers.certificates import Certificate

CHASSIS = "/redfish/v1/Chassis"
METRICS = f"{CHASSIS}/1U/EnvironmentMetrics"
SENSOR = f"{CHASSIS}/1U/Sensors/TotalEnergy"


def at(path: str) -> dict[str, str]:
    return {"@odata.id": path}


def rack_server() -> dict[str, Any]:
    """The documents of a server that counts energy: in its sensor, which knows when it was reset, and in a chassis that contains another."""
    return {
        "/redfish/v1/": {"@odata.type": "#ServiceRoot.v1_15_0.ServiceRoot", "Chassis": at(CHASSIS)},
        CHASSIS: {"Members": [at(f"{CHASSIS}/1U"), at(f"{CHASSIS}/Backplane")], "Members@odata.count": 2},
        f"{CHASSIS}/1U": {
            "@odata.type": "#Chassis.v1_22_0.Chassis",
            "Id": "1U",
            "EnvironmentMetrics": at(METRICS),
            "Power": at(f"{CHASSIS}/1U/Power"),
            "Links": {"ContainedBy": at("/redfish/v1/Chassis/Rack"), "ManagedBy": [at("/redfish/v1/Managers/BMC")]},
        },
        f"{CHASSIS}/Backplane": {
            "Id": "Backplane",
            "EnvironmentMetrics": at(f"{CHASSIS}/Backplane/EnvironmentMetrics"),
            "Links": {"ContainedBy": at(f"{CHASSIS}/1U/")},
        },
        METRICS: {
            "@odata.type": "#EnvironmentMetrics.v1_3_0.EnvironmentMetrics",
            "PowerWatts": {"DataSourceUri": f"{CHASSIS}/1U/Sensors/TotalPower", "Reading": 374},
            "EnergykWh": {"DataSourceUri": SENSOR, "Reading": 36166.123},
        },
        SENSOR: {
            "@odata.type": "#Sensor.v1_6_0.Sensor",
            "ReadingType": "EnergykWh",
            "ReadingUnits": "kW.h",
            "Reading": 36166.123,
            "SensorResetTime": "2026-01-01T00:00:00Z",
        },
        f"{CHASSIS}/1U/Power": {
            "@odata.type": "#Power.v1_7_1.Power",
            "PowerControl": [
                {"MemberId": "0", "PhysicalContext": "CPU", "PowerConsumedWatts": 120},
                {"MemberId": "1", "Name": "System Input Power", "PowerConsumedWatts": 344},
            ],
        },
    }


class EmulatedBmc(Resource):
    """``documents`` by path; a text is sent as it is. ``hang`` never ends its responses, ``flood`` sends without end."""

    isLeaf = True  # noqa: N815

    def __init__(self, documents: dict[str, Any] | None = None, password: str = "secret") -> None:
        super().__init__()
        self.documents = documents if documents is not None else rack_server()
        self.authorization = "Basic " + base64.b64encode(f"meter:{password}".encode()).decode()
        self.requested: list[str] = []
        self.behaviour = ""
        self.location = ""
        self._unanswered: list[tuple[Any, Any]] = []

    def render_GET(self, request: Any) -> Any:
        path = request.uri.decode()
        self.requested.append(path)
        if request.getHeader("authorization") != self.authorization:
            request.setResponseCode(401)
            return b'{"error": {"code": "Base.1.8.NoValidSession"}}'
        if self.behaviour in ("hang", "flood"):
            ended = request.notifyFinish().addErrback(lambda _: None)
            self._unanswered.append((request, ended))
            request.write(b"{" if self.behaviour == "hang" else b" " * 3 * 1024 * 1024)
            return NOT_DONE_YET
        if self.behaviour == "redirect":
            request.setResponseCode(302)
            request.setHeader("location", self.location)
            return b""
        document = self.documents.get(path)
        if document is None:
            request.setResponseCode(404)
            return b"{}"
        return document.encode() if isinstance(document, str) else json.dumps(document).encode()

    async def end(self) -> None:
        """Close the connections whose requests are not answered."""
        for request, ended in self._unanswered:
            if request.channel is not None:
                request.transport.abortConnection()
            await ended

    def listen(self, reactor: Any, certificate: Certificate) -> Any:
        """Serve on a free port with ``certificate``; return the port."""
        pem = certificate.cert_file.read_bytes() + b"\n" + certificate.key_file.read_bytes()
        return reactor.listenSSL(0, Site(self), PrivateCertificate.loadPEM(pem).options(), interface="127.0.0.1")
