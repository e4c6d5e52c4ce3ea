"""Reading the configuration: defaults, secrets, and every mistake at once."""

import math
import re
import stat
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic import SecretStr

from meter.settings import Config
from meter.settings.config_file import effective
from meter.settings.config_file import is_local
from meter.settings.config_file import keyring
from meter.settings.config_file import load
from meter.settings.config_file import masked
from meter.settings.config_file import parse
from meter.settings.problems import ConfigError
from meter.settings.problems import placed_in_file
from meter.settings.tls import ServerTlsSection
from meter.settings.tls import tls_problems

REFERENCE = Path(__file__).parents[3] / "etc/meter.toml"


SECRET = "whsec_" + 16 * "c0ff"
WEBHOOK = f"[[rating.webhooks]]\nname = '{{0}}'\nurl = '{{1}}'\nsecret = '{SECRET}'\n"


def problems(text, daemon="meter-collector"):
    with pytest.raises(ConfigError) as caught:
        parse(text, daemon, "meter.toml")
    return caught.value.problems


def test_every_mistake_is_reported_at_once_with_its_place():
    found = problems(
        """
        [polling]
        interval_second = 3
        timeout_seconds = "soon"
        [poling]
        [bus]
        prefetch = 0
        queue_type = "lazy"
        [[signing.keys]]
        key = "x"
        """
    )

    assert found == [
        'meter.toml, line 8: [bus] queue_type: should be "auto", "classic" or "quorum", not "lazy"',
        "meter.toml, line 7: [bus] prefetch: should be greater than 0, not 0",
        "meter.toml, line 9: [signing.keys.1] id: is missing",
        'meter.toml, line 4: [polling] timeout_seconds: should be a number, not "soon"',
        "meter.toml, line 3: [polling] interval_second: unknown key; did you mean interval_seconds?",
        "meter.toml, line 5: [poling]: unknown section; did you mean polling?",
    ]


@pytest.mark.parametrize(
    ("text", "daemon", "expected"),
    [
        ("[bus]\nurl = 'local:'", "meter-api", "works inside twistd meter only; meter-api needs amqp://"),
        ("[bus]\nurl = 'http://h'", "meter", "should be amqp://"),
        ("[store]\ndsn = 'mysql://h/d'", "meter", "should be postgresql://"),
        ("[signing]\nkey = ''", "meter", "must not be empty"),
        ("[signing]\nkey = 'a'\n[[signing.keys]]\nid = 'b'\nkey = 'c'", "meter", "remove key and key_file"),
        ("[[signing.keys]]\nid = 'b'", "meter", "key: is missing; set key or key_file"),
        ("[[signing.keys]]\nid = 'b'\nkey='1'\n[[signing.keys]]\nid = 'b'\nkey='2'", "meter", "same id"),
        ("[api]\nlisten = 'tcp:8777'", "meter", "only a loopback interface or a UNIX socket"),
        ("[status]\nlisten = 'tcp:x'", "meter", "is not an endpoint like tcp:8777"),
        ("[status.by_daemon]\nmetre-api = ''", "meter", "there is no such daemon; did you mean meter-api?"),
        (
            "[manhole.by_daemon]\nall = ''",
            "meter",
            "known: meter, meter-compute, meter-central, meter-collector, meter-api",
        ),
        ("[polling]\ninterval_seconds = true", "meter", "[polling] interval_seconds: should be a number, not true"),
        ("[plugins]\ndisable = 'cpu'", "meter", '[plugins] disable: should be an array, not "cpu"'),
        ("[status.by_daemon]\nmeter-api = 'tpc:80'", "meter", "is not an endpoint like tcp:8777"),
        ("[api.auth]\nmode = 'keystone'\nkeystone.password = 'p'", "meter", "should be an http:// or https:// URL"),
        ("[api.auth]\nmode = 'keystone'\nkeystone.auth_url = 'http://k'", "meter", "set password or password_file"),
        (
            f"[api.auth]\nmode = 'tokens'\ntokens = [{{sha256 = '{'0' * 64}'}}]",
            "meter",
            "either admin = true or a project_id",
        ),
        (
            "[api.auth]\nmode = 'tokens'\ntokens = [{sha256 = 'abc', admin = true}]",
            "meter",
            "sha256: should be 64 hexadecimal digits, the output of sha256sum",
        ),
        ("[api.auth]\nmode = 'tokens'\nrefresh_seconds = 300.0", "meter", "must be less than max_unchecked_seconds"),
        ("[bus]\nurl_file = '/nowhere'", "meter", "[bus] url_file: cannot be read"),
        (WEBHOOK.format("x", "https://h/", "x") * 2, "meter", "two targets have the same name"),
        ("[rating]\ninterval_seconds = 3601", "meter", "less than or equal to 3600"),
        ("[api.prometheus]\nmetadata_labels = {project = 'x'}", "meter", "the label project is reserved"),
        ("[api.prometheus]\nmetadata_labels = {'a-b' = 'x'}", "meter", "metadata_labels"),
        ("[api.tls]\nkey_file = '/k'", "meter", "[api.tls] key_file: set cert_file too"),
        ("[status.tls]\nclient_ca_file = '/c'", "meter", "[status.tls] client_ca_file: set cert_file too"),
        ("[meter]\nlog_levels = 'loud'", "meter", "[meter] log_levels: 'loud' must be a level"),
        ("not toml", "meter", "not TOML"),
        (f"[bus]\nprefetch = {'9' * 5000}", "meter", "not TOML"),
        (f"[bus]\nprefetch = {'[' * 5000}", "meter", "brackets are nested too deeply"),
        ("[signing]\nschemes = ['meter', 1]", "meter", ', line 2: [signing] schemes.2: should be "meter" or'),
        (
            "[api.prometheus]\nmetadata_labels = {'a-b' = 'x'}",
            "meter",
            "line 2: [api.prometheus.metadata_labels] a-b: should be a label of letters",
        ),
        ("[bus]\nurl_file = '/nowhere'", "meter", "cannot be read: /nowhere: No such file or directory"),
        ('[bus]\nurl_file = "a\\u0000b"', "meter", "is not a path of a file"),
        (
            "[status]\nlisten = 'tpc:80'",
            "meter",
            "is not an endpoint like tcp:8777:interface=127.0.0.1: there is no type tpc",
        ),
    ],
)
def test_a_mistake_says_what_would_be_right(text, daemon, expected):
    [found] = problems(text, daemon)
    assert expected in found


@pytest.mark.parametrize(
    "mode", ["mode = 'none'", "mode = 'keystone'\nkeystone.auth_url = 'http://k'\nkeystone.password = 'p'"]
)
def test_settings_of_stored_tokens_are_not_compared_in_other_modes(mode):
    config = parse(f"[api.auth]\n{mode}\nmax_unchecked_seconds = 4.0", "meter")
    assert config.api.auth.max_unchecked_seconds == 4.0


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org",
        "ftp://example.org/",
        "https://",
        "https://:443/",
        "https://user:pw@example.org/",
        "https://user@example.org/",
        "https://example.org:port/",
        "https://example.org:99999/",
        "https://example.org:0/",
        "https://example.org/a b",
        "https://exämple.org/",
        "https://[::1/",
        "file:///etc/passwd",
    ],
)
def test_url_of_a_webhook_is_http_without_a_password(url):
    [found] = problems(WEBHOOK.format("billing", url), "meter")
    assert "[rating.webhooks.1] url: should be an https:// or http:// URL with a host" in found


@pytest.mark.parametrize("url", ["https://example.org/hooks?a=b", "http://10.0.0.7:8080", "https://[2001:db8::1]/"])
def test_webhooks_can_have_any_http_url(url):
    config = parse(WEBHOOK.format("billing", url), "meter")
    assert config.rating.webhooks[0].url == url
    assert SECRET not in effective(config)


@pytest.mark.parametrize(
    ("secret", "wrong"),
    [
        ("", "a webhook needs a secret"),
        ("hunter2", "does not begin so"),
        ("whsec_hunter2!", "is not base64"),
        ("whsec_aHVudGVyMg==", "this one has 7"),
        (f"{SECRET} hunter2", "does not begin so"),
        ("whsec_" + 32 * "c0ff", "this one has 96"),
        (5, "should be a text"),
    ],
)
def test_bad_secret_of_a_webhook_is_not_shown(secret, wrong):
    [found] = problems(WEBHOOK.format("billing", "https://h/").replace(f"'{SECRET}'", repr(secret)), "meter")
    assert "[rating.webhooks.1] secret" in found
    assert wrong in found
    assert "hunter2" not in found
    assert "5" not in found.replace("24 to 64", "")


def test_secret_of_a_webhook_comes_from_a_file(tmp_path):
    (tmp_path / "secret").write_text(f"{SECRET}\n{SECRET}\n")
    text = WEBHOOK.format("billing", "https://h/").replace(f"secret = '{SECRET}'", f"secret_file = '{tmp_path}/secret'")
    assert parse(text, "meter").rating.webhooks[0].secret.get_secret_value().split() == [SECRET, SECRET]


def test_a_file_that_is_not_there_is_a_mistake_too(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load(str(tmp_path / "none.toml"), "meter")


def test_line_that_is_not_utf_8_is_named(tmp_path):
    file = tmp_path / "meter.toml"
    file.write_bytes(b"[meter]\n# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"meter\.toml: line 2 is not in UTF-8: save the file as UTF-8"):
        load(str(file), "meter")
    file.write_bytes(b"\xef\xbb\xbf[meter]\nsource = 'x'\n")
    assert load(str(file), "meter").meter.source == "x"


def test_secrets_come_from_files(tmp_path):
    (tmp_path / "url").write_text("amqp://u:p@h/\n")
    (tmp_path / "key").write_text(" hunter2\n")

    config = parse(
        f"[bus]\nurl_file = '{tmp_path}/url'\n[[signing.keys]]\nid = 'a'\nkey_file = '{tmp_path}/key'", "meter-api"
    )

    assert config.bus.url.get_secret_value() == "amqp://u:p@h/"
    assert config.signing.keys[0].key == SecretStr("hunter2")


def test_a_secret_and_its_file_exclude_each_other(tmp_path):
    (tmp_path / "key").write_text("x")
    assert "remove it, as key_file is set" in problems(f"[signing]\nkey = 'a'\nkey_file = '{tmp_path}/key'")[0]


def test_an_empty_secret_file_is_a_mistake(tmp_path):
    (tmp_path / "key").write_text("\n")
    assert f"{tmp_path}/key is empty" in problems(f"[signing]\nkey_file = '{tmp_path}/key'")[0]


def test_the_single_daemon_needs_nothing_beside_itself():
    config = parse("[meter]\nstate_dir = '/srv/m'", "meter")

    assert config.bus.url.get_secret_value() == "local:"
    assert config.store.dsn.get_secret_value() == "embedded:/srv/m/postgresql"


def test_the_single_daemon_takes_what_it_is_told():
    config = parse("[bus]\nurl = 'amqp://h/'\n[store]\nreaders = 1", "meter")

    assert config.bus.url.get_secret_value() == "amqp://h/"
    assert config.store.dsn.get_secret_value().startswith("embedded:")


def test_effective_configuration_is_toml_without_secrets():
    text = """
    [bus]
    url = "amqp://meter:hunter2@rabbit/"
    [store]
    dsn = "host=db password=hunter2 user=m"
    [signing]
    key = "hunter2"
    [polling]
    interval_seconds = 5
    [status]
    by_daemon = { meter-api = "tcp:1:interface=127.0.0.1" }
    [pollsters.lamp]
    room = "k\\"itchen"
    watts = inf
    """

    shown = effective(parse(text, "meter-collector"))

    assert "hunter2" not in shown
    back = tomllib.loads(shown)
    assert back["bus"]["url"] == "amqp://meter:***@rabbit/"
    assert back["store"]["dsn"] == "host=db password=*** user=m"
    assert back["signing"]["key"] == "**********"
    assert back["polling"]["interval_seconds"] == 5
    assert back["status"]["by_daemon"] == {"meter-api": "tcp:1:interface=127.0.0.1"}
    assert back["pollsters"]["lamp"] == {"room": 'k"itchen', "watts": math.inf}


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("amqp://u:p%40ss@h:5672/v", "amqp://u:***@h:5672/v"),
        ("postgresql://u:p@h/d?password=x&sslmode=require", "postgresql://u:***@h/d?password=***&sslmode=require"),
        ("password='it\\'s' host=h", "password=*** host=h"),
        ("local:", "local:"),
    ],
)
def test_passwords_in_locations_are_masked(location, shown):
    assert masked(location) == shown


@pytest.mark.parametrize(
    ("listen", "local"),
    [
        ("tcp:1:interface=127.0.0.1", True),
        ("tcp:1:interface=127.1.2.3", True),
        ("tcp6:1:interface=\\:\\:1", True),
        ("tcp:1:interface=localhost", True),
        ("unix:/run/x", True),
        ("tcp:1", False),
        ("tcp:1:interface=0.0.0.0", False),
        ("tcp:1:interface=10.0.0.1", False),
    ],
)
def test_knows_what_only_this_host_can_reach(listen, local):
    assert is_local(listen) is local


def test_without_a_key_one_is_made_once_and_for_its_owner_only(tmp_path):
    config = parse(f"[meter]\nstate_dir = '{tmp_path}/new'", "meter")

    first, second = keyring(config), keyring(config)

    [key], [again] = first._keys, second._keys
    assert key.secret == again.secret
    assert len(key.secret) == 64
    assert stat.S_IMODE(config.signing_key_file.stat().st_mode) == 0o600
    assert [path.name for path in config.signing_key_file.parent.iterdir()] == ["signing.key"]


@pytest.mark.parametrize(
    ("text", "suggested"),
    [
        ("[[signing.keys]]\nid = 'a'\nkey = 'b'\nnot_befor = 2026-01-01", "did you mean not_before?"),
        ("[openstack.by_service.image]\nin_flight = 2", "did you mean max_in_flight?"),
        ("[openstack.limits]\nin_flight = 2", "did you mean max_in_flight?"),
        ("[bus]\nlargest_body_bytes = 2", "did you mean max_body_bytes?"),
        ("[api.auth.keystone]\nuser = 'a'", "did you mean username?"),
    ],
)
def test_similar_key_is_suggested_wherever_it_is(text, suggested):
    assert [each for each in problems(text) if suggested in each]


def test_empty_generated_key_is_refused(tmp_path):
    config = parse(f"[meter]\nstate_dir = '{tmp_path}'", "meter")
    config.signing_key_file.touch()
    with pytest.raises(ConfigError, match="the generated signing key is empty"):
        keyring(config)


def test_a_check_makes_no_key(tmp_path):
    keyring(parse(f"[meter]\nstate_dir = '{tmp_path}/new'", "meter"), make=False)

    assert not (tmp_path / "new").exists()


def test_a_check_reads_the_key_that_was_generated(tmp_path):
    config = parse(f"[meter]\nstate_dir = '{tmp_path}'", "meter")
    [made] = keyring(config).keys

    [read] = keyring(config, make=False).keys

    assert read.secret == made.secret
    config.signing_key_file.write_text("")
    with pytest.raises(ConfigError, match="the generated signing key is empty"):
        keyring(config, make=False)
    config.signing_key_file.unlink()
    config.signing_key_file.mkdir()
    with pytest.raises(ConfigError, match="the generated signing key cannot be read"):
        keyring(config, make=False)


def test_key_times_without_a_zone_are_utc():
    config = parse("[[signing.keys]]\nid = 'a'\nkey = 'b'\nnot_before = 2026-01-01T00:00:00", "meter")

    assert keyring(config)._keys[0].not_before.isoformat() == "2026-01-01T00:00:00+00:00"


def sections(model, prefix=""):
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield f"{prefix}{name}", field.annotation
            yield from sections(field.annotation, f"{prefix}{name}.")


def test_the_reference_shows_every_setting_with_its_default_and_its_sentence():
    text = REFERENCE.read_text()
    shown = tomllib.loads(re.sub(r"(?m)^#(?=[a-z_]+ = )", "", text))
    shown["signing"]["key"] = None  # there it is only hinted at
    shown["api"]["auth"]["keystone"]["password"] = None
    prose = re.sub(r"\n## ", " ", text)

    for place, model in sections(Config):
        table = shown
        for part in place.split("."):
            table = table[part]
        plain = {
            name: field
            for name, field in model.model_fields.items()
            if (f"{place}.{name}") not in dict(sections(Config))
        }
        assert set(plain) == {name for name, value in table.items() if f"{place}.{name}" not in dict(sections(Config))}
        for name, field in plain.items():
            default = field.get_default(call_default_factory=True)
            default = default.get_secret_value() if isinstance(default, SecretStr) else default
            assert table[name] == default, f"{place}.{name}"
            assert field.description in prose, f"{place}.{name}"


def test_the_reference_changes_nothing():
    assert load(str(REFERENCE), "meter") == parse("", "meter")


def test_port_with_a_certificate_in_listen_has_no_other():
    tls = ServerTlsSection(cert_file="/c")
    assert list(tls_problems("api", tls, ["tcp:8777", "unix:/run/x"])) == []
    [found] = tls_problems("api", tls, ["tcp:8777", "ssl:8780"])
    assert found.startswith("[api.tls] cert_file: listen must begin with tcp:")


def test_problems_of_plugins_have_the_file_and_the_line(tmp_path):
    path = tmp_path / "meter.toml"
    path.write_text(
        '[pollsters.cpu]\nlimit = 5\n[listeners."neutron.bandwidth"]\ngranularity = "x"\nfallbak = true\n[pollsters.two]\nurls = [\n "a",\n "b",\n]\n'
    )
    found = placed_in_file(
        [
            "[pollsters.cpu] limit: unknown option; known are path",
            "[listeners.neutron.bandwidth] fallbak: unknown option",
            "[listeners.neutron.bandwidth] mode: is missing",
            "[pollsters.two] urls.2: should be a URL",
            "[pollsters.gone]: no such plugin is installed",
        ],
        str(path),
    )
    assert [each.removeprefix(str(path)).partition(": ")[0] for each in found] == [
        ", line 2",
        ", line 5",
        ", line 3",
        ", line 9",
        "",
    ]
    assert placed_in_file(["[pollsters.cpu] limit: wrong"], None) == ["built-in defaults: [pollsters.cpu] limit: wrong"]
    path.write_text("changed = [meanwhile")
    assert placed_in_file(["[pollsters.cpu] limit: wrong"], str(path)) == [f"{path}: [pollsters.cpu] limit: wrong"]


def test_positions_in_lists_count_from_1():
    found = problems(
        """
        [signing]
        keys = [{id = "a", key = "x", schemes = ["meter", "other"]}, {key = "y"}]
        """
    )
    assert [each.partition(": ")[2].split(": ")[0] for each in found] == [
        "[signing.keys.1] schemes.2",
        "[signing.keys.2] id",
    ]
    assert all(each.startswith("meter.toml, line 3: ") for each in found)
