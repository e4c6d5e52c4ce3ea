"""Keys of statements are made, replaced and read."""

from __future__ import annotations

import hashlib
import json
import os
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization import NoEncryption
from cryptography.hazmat.primitives.serialization import PrivateFormat
from cryptography.hazmat.primitives.serialization import PublicFormat

from meter.rating.statements import statement_keys
from meter.rating.statements.statement import builtins
from meter.rating.statements.statement_keys import generate_key
from meter.rating.statements.statement_keys import key_id_of
from meter.rating.statements.statement_keys import listed
from meter.rating.statements.statement_keys import public_directory
from meter.rating.statements.statement_keys import read_private_key
from meter.rating.statements.statement_keys import read_public_keys
from meter.rating.statements.statement_keys import rotate_key


@pytest.fixture
def private(tmp_path):
    return tmp_path / "statement.pem"


@pytest.fixture
def public(tmp_path):
    return tmp_path / "statement-keys"


def test_generated_key_is_private_and_its_public_half_is_not(private, public):
    id = generate_key(private, public)

    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE((public / f"{id}.pem").stat().st_mode) == 0o644
    key = read_private_key(private).public_key()
    assert read_public_keys(public) == read_public_keys(public / f"{id}.pem") == {id: key}
    assert sorted(each.name for each in private.parent.iterdir()) == ["statement-keys", "statement.pem"]


def test_id_is_derived_from_the_key(private, public):
    id = generate_key(private, public)
    raw = read_private_key(private).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert (id, key_id_of(read_private_key(private).public_key())) == (hashlib.sha256(raw).hexdigest()[:16],) * 2


def test_existing_key_is_never_overwritten(private, public):
    private.write_text("something else")
    with pytest.raises(ValueError, match=r"statement\.pem exists: meter-rate keys rotate replaces a key"):
        generate_key(private, public)
    assert private.read_text() == "something else"


def test_key_that_appears_meanwhile_is_not_overwritten(private, public, monkeypatch):
    monkeypatch.setattr(statement_keys.os.path, "lexists", lambda path: False)
    private.write_text("something else")
    with pytest.raises(ValueError, match=r"the key cannot be written: .*File exists"):
        generate_key(private, public)
    assert private.read_text() == "something else"


def test_rotation_keeps_all_public_keys_and_the_old_private_one(private, public):
    first = generate_key(private, public)
    pem = private.read_bytes()
    second, kept = rotate_key(private, public)

    assert first != second
    assert set(read_public_keys(public)) == {first, second}
    assert key_id_of(read_private_key(private).public_key()) == second
    assert (kept.name, kept.read_bytes(), stat.S_IMODE(kept.stat().st_mode)) == (f"statement.pem.{first}", pem, 0o600)


def test_rotation_restores_a_missing_public_key(private, public):
    first = generate_key(private, public)
    (public / f"{first}.pem").unlink()
    second, _ = rotate_key(private, public)
    assert set(read_public_keys(public)) == {first, second}


def test_interrupted_rotation_leaves_the_old_key_and_can_be_repeated(private, public, monkeypatch):
    first = generate_key(private, public)
    with monkeypatch.context() as patched:
        real = statement_keys.os.replace
        patched.setattr(
            statement_keys.os,
            "replace",
            lambda source, target: (
                real(source, target) if target != private else (_ for _ in ()).throw(OSError("killed"))
            ),
        )
        with pytest.raises(ValueError, match="killed"):
            rotate_key(private, public)
    assert key_id_of(read_private_key(private).public_key()) == first

    second, _ = rotate_key(private, public)
    assert {first, second} < set(read_public_keys(public))
    assert key_id_of(read_private_key(private).public_key()) == second


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o640, 0o666])
def test_key_that_others_can_use_is_refused(private, public, mode):
    generate_key(private, public)
    private.chmod(mode)
    with pytest.raises(ValueError, match=f"has mode {mode:04o}: others can use the signing key; chmod 0600"):
        read_private_key(private)


def test_missing_key_names_the_command_that_makes_it(private):
    with pytest.raises(ValueError, match=r"No such file.*meter-rate keys generate makes one"):
        read_private_key(private)


def pem_of(key, **changes):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (b"", "is not a private key in PEM"),
        (b"-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n", "is not a private key in PEM"),
        (pem_of(X25519PrivateKey.generate()), "has a key of another kind"),
    ],
)
def test_other_private_file_is_refused(private, pem, why):
    private.write_bytes(pem)
    private.chmod(0o600)
    with pytest.raises(ValueError, match=why):
        read_private_key(private)


def test_public_keys_are_read_from_the_response_of_the_api(private, public, tmp_path):
    id = generate_key(private, public)
    response = tmp_path / "keys.json"
    response.write_text(json.dumps([builtins(each) for each in listed(read_public_keys(public))]))
    assert read_public_keys(response) == read_public_keys(public)

    response.write_text(response.read_text().replace(id, "0" * 16))
    with pytest.raises(ValueError, match=f"calls the key {id} '0000000000000000'"):
        read_public_keys(response)


def test_public_key_under_another_name_is_refused(private, public):
    id = generate_key(private, public)
    (public / f"{id}.pem").rename(public / "0123456789abcdef.pem")
    with pytest.raises(ValueError, match=f"0123456789abcdef.pem has the key {id}: its name must be that id"):
        read_public_keys(public)


@pytest.mark.parametrize(
    ("text", "why"),
    [("nonsense", "is not a public key in PEM"), ("[1]", "is not a list of keys"), ("[", "not JSON")],
)
def test_other_public_file_is_refused(tmp_path, text, why):
    file = tmp_path / "x.pem"
    file.write_text(text)
    with pytest.raises(ValueError, match=why):
        read_public_keys(file)


def test_private_key_is_no_public_key(private, public):
    generate_key(private, public)
    with pytest.raises(ValueError, match="is not a public key in PEM"):
        read_public_keys(private)


def test_directory_of_public_keys_is_beside_the_private_one_unless_configured():
    assert str(public_directory("/etc/meter/statement.pem", "")) == "/etc/meter/statement-keys"
    assert str(public_directory("/etc/meter/statement.pem", "/srv/keys")) == "/srv/keys"
    with pytest.raises(ValueError, match="set \\[rating\\] signing_key_file or public_keys_directory"):
        public_directory("", "")


def test_listed_keys_are_in_order():
    keys = {key_id_of(key): key for key in (Ed25519PrivateKey.generate().public_key() for _ in range(5))}
    assert [each.key_id for each in listed(keys)] == sorted(keys)


def test_named_pipe_among_the_public_keys_is_an_error_and_waits_for_nobody(private, public):
    generate_key(private, public)
    os.mkfifo(public / "0123456789abcdef.pem")
    with pytest.raises(ValueError, match=r"0123456789abcdef.pem is not a regular file"):
        read_public_keys(public)
