"""The Ed25519 keys of statements: the private one in a file of its own, and the public ones of all times in a directory.

The id of a key is derived from it: the first 16 hexadecimal digits of the SHA-256 of its 32 raw public bytes. A public key stays
in its directory when the private one is replaced, so that what it signed can be verified for ever.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from typing import BinaryIO

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization import NoEncryption
from cryptography.hazmat.primitives.serialization import PrivateFormat
from cryptography.hazmat.primitives.serialization import PublicFormat
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from meter.rating.statements.strict_json import decoded

PUBLIC_DIRECTORY = "statement-keys"
"""Name of the directory of public keys beside the private one, unless another one is configured."""

MAX_KEY_BYTES = 1024 * 1024


class StatementKey(msgspec.Struct, frozen=True, kw_only=True):
    """A public key, as the API and ``meter-rate keys list`` show it. ``public_key`` is PEM (SubjectPublicKeyInfo)."""

    key_id: str
    public_key: str
    algorithm: str = "Ed25519"


def key_id_of(key: Ed25519PublicKey) -> str:
    """Return the id of ``key``: the first 16 hexadecimal digits of the SHA-256 of its raw bytes."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def public_pem(key: Ed25519PublicKey) -> str:
    """Return ``key`` as PEM."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def public_directory(signing_key_file: str, configured: str) -> Path:
    """Return the directory of the public keys: the ``configured`` one, or that beside the file of the private key.

    :raises ValueError: neither is configured.
    """
    if configured:
        return Path(configured)
    if not signing_key_file:
        raise ValueError("there are no keys of statements: set [rating] signing_key_file or public_keys_directory")
    return Path(signing_key_file).parent / PUBLIC_DIRECTORY


# --- reading -------------------------------------------------------------------------------------------------------


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Return the private key in the file at ``path``.

    :raises ValueError: it cannot be read, is no Ed25519 key, or other users of the system may read it.
    """
    try:
        with _opened(path) as opened:
            found = os.fstat(opened.fileno())
            pem = opened.read(MAX_KEY_BYTES)
    except OSError as error:
        raise ValueError(f"the signing key cannot be read: {error}; meter-rate keys generate makes one") from error
    mode = stat.S_IMODE(found.st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ValueError(f"{path} has mode {mode:04o}: others can use the signing key; chmod 0600 {path}")
    if found.st_uid not in (os.geteuid(), 0):
        raise ValueError(f"{path} belongs to the user {found.st_uid}, who can replace the signing key")
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path} is not a private key in PEM without a password: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} has a key of another kind: statements are signed with Ed25519")
    return key


def read_public_keys(path: Path) -> dict[str, Ed25519PublicKey]:
    """Return the public keys at ``path``, by id: a PEM file, a directory of ``*.pem``, or the response of ``GET /v2/statement-keys``.

    :raises ValueError: it cannot be read, has something else, or a file in a directory has not the name of its key.
    """
    try:
        if not path.is_dir():
            return _keys_in(path)
        keys: dict[str, Ed25519PublicKey] = {}
        for file in sorted(path.glob("*.pem")):
            found = _keys_in(file)
            if set(found) != {file.stem}:
                raise ValueError(f"{file} has the key {', '.join(found)}: its name must be that id and .pem")
            keys |= found
    except OSError as error:
        raise ValueError(f"keys of statements cannot be read: {error}") from error
    return keys


def listed(keys: Mapping[str, Ed25519PublicKey]) -> list[StatementKey]:
    """Return ``keys`` in the order of their ids, as they are shown."""
    return [StatementKey(key_id=id, public_key=public_pem(key)) for id, key in sorted(keys.items())]


def _keys_in(file: Path) -> dict[str, Ed25519PublicKey]:
    with _opened(file) as opened:
        body = opened.read(MAX_KEY_BYTES + 1)
    if len(body) > MAX_KEY_BYTES:
        raise ValueError(f"{file} has more than {MAX_KEY_BYTES} bytes: it is not a file of public keys")
    if body.lstrip()[:1] in (b"[", b"{"):
        return _keys_in_json(file, body)
    key = _public_key(body, str(file))
    return {key_id_of(key): key}


def _opened(file: Path) -> BinaryIO:
    """Return ``file``, open for reading; a named pipe, whose reader would wait, is an ``OSError`` as a directory is."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{file} is not a regular file")
    return os.fdopen(descriptor, "rb")


def _keys_in_json(file: Path, body: bytes) -> dict[str, Ed25519PublicKey]:
    document: Any = decoded(body)
    rows = document if isinstance(document, list) else [document]
    keys = {}
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("public_key"), str):
            raise ValueError(f"{file} is not a list of keys of statements: each has key_id and public_key")
        key = _public_key(row["public_key"].encode(), str(file))
        if row.get("key_id") != key_id_of(key):
            raise ValueError(f"{file} calls the key {key_id_of(key)} {str(row.get('key_id'))[:80]!r}")
        keys[key_id_of(key)] = key
    return keys


def _public_key(pem: bytes, where: str) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{where} is not a public key in PEM: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{where} has a key of another kind: statements are signed with Ed25519")
    return key


# --- making --------------------------------------------------------------------------------------------------------


def refuse_existing(private_file: Path) -> None:
    """Raise :class:`ValueError` if there is a file ``private_file``, which a new key would overwrite."""
    if os.path.lexists(private_file):
        raise ValueError(
            f"{private_file} exists: meter-rate keys rotate replaces a key, and keeps what it signed valid"
        )


def generate_key(private_file: Path, public_keys: Path, key: Ed25519PrivateKey | None = None) -> str:
    """Write ``key``, or a new one, and its public key; return its id. Nothing is overwritten.

    :raises ValueError: ``private_file`` exists, or one of the files cannot be written.
    """
    refuse_existing(private_file)
    return _make(private_file, public_keys, key, lambda new: os.link(new, private_file))


def rotate_key(private_file: Path, public_keys: Path, key: Ed25519PrivateKey | None = None) -> tuple[str, Path]:
    """Replace the private key by ``key``, or a new one; return the new id, and the file that the old one has been moved to.

    At every moment ``private_file`` is one of the two. The public key of the old one is written again if it is missing.

    :raises ValueError: there is no private key to be replaced, or one of the files cannot be written.
    """
    old = read_private_key(private_file).public_key()
    kept = private_file.with_name(f"{private_file.name}.{key_id_of(old)}")

    def replace(new: str) -> None:
        if not kept.exists():
            os.link(private_file, kept)
        os.replace(new, private_file)

    try:
        publish_key(old, public_keys)
    except OSError as error:
        raise ValueError(f"the public key cannot be written: {error}") from error
    return _make(private_file, public_keys, key, replace), kept


def _make(private_file: Path, public_keys: Path, key: Ed25519PrivateKey | None, put: Any) -> str:
    key = key or Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        # The public key first: a private one without it would sign what nobody can verify.
        publish_key(key.public_key(), public_keys)
        descriptor, temporary = tempfile.mkstemp(dir=private_file.parent)  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            put(temporary)
        finally:
            if os.path.lexists(temporary):
                os.unlink(temporary)
        _sync(private_file.parent)
    except OSError as error:
        raise ValueError(f"the key cannot be written: {error}") from error
    return key_id_of(key.public_key())


def publish_key(key: Ed25519PublicKey, public_keys: Path) -> None:
    """Write a public key into the directory ``public_keys``, unless it is there; ``OSError`` if that fails."""
    public_keys.mkdir(parents=True, exist_ok=True)
    file = public_keys / f"{key_id_of(key)}.pem"
    if file.exists():
        return
    descriptor, temporary = tempfile.mkstemp(dir=public_keys)
    with os.fdopen(descriptor, "w", encoding="ascii") as opened:
        opened.write(public_pem(key))
        opened.flush()
        os.fsync(opened.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, file)
    _sync(public_keys)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
