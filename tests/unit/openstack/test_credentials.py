"""Credentials from settings, clouds.yaml and environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meter.http import TlsOptions
from meter.openstack.credentials import BadCredentials
from meter.openstack.credentials import CloudConfig
from meter.openstack.credentials import Credentials
from meter.openstack.credentials import clouds_files
from meter.openstack.credentials import from_clouds
from meter.openstack.credentials import from_variables
from meter.settings import OpenStackSection
from meter.taps.parts.cloud import cloud_config

CLOUDS = """
clouds:
  region-one:
    region_name: RegionOne
    interface: internal
    cacert: /etc/ssl/cloud.pem
    verify: false
    auth:
      auth_url: https://keystone:5000/v3
      username: meter
      project_name: service
      user_domain_name: Default
      project_domain_id: default
  credential:
    auth_type: v3applicationcredential
    auth:
      auth_url: https://keystone:5000
      application_credential_id: abc
      application_credential_secret: s3cret
      password: unused
  odd: [1, 2]
  saml:
    auth_type: v3samlpassword
    auth: {auth_url: https://k, username: u, password: p}
"""
SECURE = "clouds: {region-one: {auth: {password: s3cret}}}"


@pytest.fixture
def clouds(tmp_path: Path) -> Path:
    (tmp_path / "secure.yaml").write_text(SECURE)
    file = tmp_path / "clouds.yaml"
    file.write_text(CLOUDS)
    return file


def test_cloud_of_clouds_yaml_gets_its_secrets_from_secure_yaml(clouds: Path) -> None:
    assert from_clouds("region-one", [clouds]) == CloudConfig(
        credentials=Credentials(
            auth_url="https://keystone:5000/v3",
            username="meter",
            project_name="service",
            user_domain_name="Default",
            project_domain_id="default",
            password="s3cret",
        ),
        region="RegionOne",
        interface="internal",
        tls=TlsOptions(ca_file="/etc/ssl/cloud.pem", insecure=True),
    )


def test_auth_type_selects_the_secret(clouds: Path) -> None:
    credentials = from_clouds("credential", [clouds]).credentials
    assert credentials.application_credential_secret == "s3cret"
    assert credentials.password == ""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "has no cloud 'nowhere'"),
        ("odd", "expected mappings"),
        ("saml", "auth_type should be password, v3applicationcredential or v3token, not 'samlpassword'"),
    ],
)
def test_unusable_cloud_is_named_in_the_error(clouds: Path, name: str, said: str) -> None:
    with pytest.raises(BadCredentials, match=said):
        from_clouds(name, [clouds])


def test_missing_or_malformed_clouds_yaml_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "clouds.yaml"
    with pytest.raises(BadCredentials, match="no such file"):
        from_clouds("x", [file])
    file.write_text("clouds: {a: !!python/object/apply:os.system ['true']}")
    with pytest.raises(BadCredentials, match="cannot be read"):
        from_clouds("a", [file])


def test_clouds_yaml_is_searched_where_openstack_clients_search() -> None:
    assert clouds_files({"OS_CLIENT_CONFIG_FILE": "/x/c.yaml"}) == [Path("/x/c.yaml")]
    assert clouds_files({"HOME": "/h"}) == [
        Path("clouds.yaml"),
        Path("/h/.config/openstack/clouds.yaml"),
        Path("/etc/openstack/clouds.yaml"),
    ]


def test_os_variables_configure_a_cloud() -> None:
    config = from_variables(
        {
            "OS_AUTH_URL": "http://keystone:5000",
            "OS_USERNAME": "meter",
            "OS_PASSWORD": "p",
            "OS_TENANT_NAME": "service",
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_REGION_NAME": "RegionOne",
            "OS_ENDPOINT_TYPE": "internalURL",
            "OS_INSECURE": "true",
            "OS_IDENTITY_API_VERSION": "3",
        }
    )
    assert config is not None
    assert config.credentials.project_name == "service"
    assert (config.region, config.interface, config.tls.insecure) == ("RegionOne", "internal", True)
    assert from_variables({}) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"auth_url": "keystone:5000"}, "auth_url should be an http"),
        ({}, "needs a password, application_credential_secret or token"),
        ({"password": "p"}, "a password needs username or user_id"),
        ({"application_credential_secret": "s"}, "application_credential_id or _name"),
        ({"application_credential_secret": "s", "application_credential_name": "n"}, "names are unique only per user"),
        ({"token": "t", "system_scope": "some"}, "system_scope should be 'all'"),
    ],
)
def test_incomplete_credentials_say_what_is_missing(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadCredentials, match=said):
        Credentials(**{"auth_url": "http://keystone", **given})


def test_repr_of_credentials_shows_no_secret() -> None:
    shown = repr(Credentials(auth_url="http://k", username="u", password="s3cret"))
    assert "s3cret" not in shown


def test_settings_precede_the_named_cloud_which_precedes_os_variables(clouds: Path) -> None:
    variables = {"OS_AUTH_URL": "http://variables", "OS_TOKEN": "t"}
    section = OpenStackSection.model_validate(
        {"auth": {"auth_url": "http://settings", "username": "u", "password": "p"}, "region": "Mars"}
    )
    config = cloud_config(section, variables)
    assert config is not None
    assert (config.credentials.auth_url, config.region, config.interface) == ("http://settings", "Mars", "public")
    named = OpenStackSection(cloud="region-one", clouds_file=str(clouds), interface="admin")
    config = cloud_config(named, variables)
    assert config is not None
    assert (config.credentials.auth_url, config.interface) == ("https://keystone:5000/v3", "admin")
    config = cloud_config(OpenStackSection(), variables)
    assert config is not None
    assert config.credentials.auth_url == "http://variables"
    assert cloud_config(OpenStackSection(), {}) is None
