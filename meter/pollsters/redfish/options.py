"""The options of the pollster: the BMCs of the hosts, and Meter's account on them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator
from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import model_validator

from meter.settings.masked import masked_settings


def _bmc_url(value: str) -> str:
    """Return the URL without a slash at its end. A password is not sent without TLS, nor written into a URL."""
    try:
        parts = urlsplit(value)
        right = parts.scheme == "https" and parts.hostname and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        right = False
    if not right or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(
            f'should be https:// with host and port only, "https://bmc1.example.org", not "{masked_settings(value):.100}"'
        )
    return value.rstrip("/")


class BmcOptions(BaseModel):
    """The BMC of a host. What it does not name is the same for all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(
        min_length=1,
        max_length=100,
        description="Name of the host, with which the resources of its samples begin; best that of its compute agent.",
    )
    url: Annotated[str, AfterValidator(_bmc_url)] = Field(description="URL of its BMC: https://bmc1.example.org")
    chassis: tuple[str, ...] = Field(
        default=(), description="Ids of the chassis to meter; by default those that are in no other chassis."
    )
    username: str = Field(default="", description="User, if another than that of all BMCs.")
    password_file: str = Field(default="", description="File with the password of the user.")


class RedfishOptions(BaseModel):
    """The options of the pollster."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hosts: tuple[BmcOptions, ...] = Field(
        default=(), description="The hosts and their BMCs. Without hosts nothing is polled."
    )
    username: str = Field(default="", description="User on the BMCs; one that may only read is enough.")
    password_file: str = Field(default="", description="File with the password of the user.")
    ca_file: str = Field(
        default="", description="CA certificates that verify the BMCs, instead of the system's CAs (PEM file)."
    )
    insecure: bool = Field(
        default=False, description="Do not verify the BMCs' certificates: a man in the middle can read the password."
    )

    @model_validator(mode="after")
    def _each_can_be_asked(self) -> RedfishOptions:
        """Refuse a host that is named twice, and one without credentials."""
        names = [each.host for each in self.hosts]
        for each in self.hosts:
            if names.count(each.host) > 1:
                raise ValueError(f"the host {each.host} is there {names.count(each.host)} times: name each once")
            if not (each.username or self.username) or not (each.password_file or self.password_file):
                raise ValueError(f"the host {each.host} has no username or no password_file, and neither have all BMCs")
        return self

    def authorization(self, bmc: BmcOptions) -> str:
        """Return the header with the credentials for ``bmc``; the password is read on each call (``OSError``)."""
        return _basic(bmc.username or self.username, bmc.password_file or self.password_file)


class OwnBmcOptions(BaseModel):
    """The BMC of the host on which the compute agent runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, AfterValidator(_bmc_url)] = Field(
        description="URL of this host's BMC, by its network or by Redfish's host interface: https://bmc1.example.org"
    )
    chassis: tuple[str, ...] = Field(
        default=(),
        description="Ids of the chassis whose energy is that of this host; by default all that are in no other.",
    )
    username: str = Field(min_length=1, description="User on the BMC; one that may only read is enough.")
    password_file: str = Field(min_length=1, description="File with the password of the user.")
    ca_file: str = Field(
        default="", description="CA certificates that verify the BMC, instead of the system's CAs (PEM file)."
    )
    insecure: bool = Field(
        default=False, description="Do not verify the BMC's certificate: a man in the middle can read the password."
    )
    max_watts: float = Field(
        default=20_000.0,
        gt=0,
        allow_inf_nan=False,
        description="More than this host can take (W): a counter that grows faster is another one, and is not counted.",
    )

    def bmc(self, host: str) -> BmcOptions:
        """Return the BMC as one of many; ``host`` is the name of this host."""
        return BmcOptions(host=host, url=self.url, chassis=self.chassis)

    def authorization(self) -> str:
        """Return the header with the credentials; the password is read on each call (``OSError``)."""
        return _basic(self.username, self.password_file)


def _basic(username: str, password_file: str) -> str:
    password = Path(password_file).read_bytes().rstrip(b"\r\n")
    pair = f"{username}:".encode() + password
    return f"Basic {base64.b64encode(pair).decode('ascii')}"
