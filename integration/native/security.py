"""What a variant of a native broker has besides the plain one, and the certificates for it, from a CA made on the spot.

    rabbitmq+tls  kafka+mtls  artemis+login  kafka+tls+login …

- `tls`: the port speaks TLS. `mtls`: it also wants a client's certificate. `login`: one user with a password of its own, and
  none of the users that everybody knows.
- The CA's key stays in memory. What the broker and a client need is written into the broker's own directory, which only its
  owner can read and which ends with the broker.
- Certificates are for `127.0.0.1` and `localhost`; the client's common name is `CLIENT_NAME`.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

WORDS = ("tls", "mtls", "login")
CLIENT_NAME = "unimq-client"
USER = "unimq-user"
SERVER_NAMES = ("127.0.0.1", "localhost")
STORE_PASSWORD = "unimq-store"  # PKCS12 has to have one; the directory is what keeps the key
PASSWORD_BYTES = 12
_KEY_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign",
    "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Variant:
    """The words after the broker's name. `str()` is how they are written there."""

    words: tuple[str, ...] = ()

    @property
    def tls(self) -> bool:
        return "tls" in self.words or self.mtls

    @property
    def mtls(self) -> bool:
        return "mtls" in self.words

    @property
    def login(self) -> bool:
        return "login" in self.words

    def __str__(self) -> str:
        return "".join(f"+{word}" for word in self.words)


PLAIN = Variant()


@dataclass(frozen=True, slots=True)
class User:
    name: str
    password: str = field(repr=False)

    @classmethod
    def fresh(cls, name: str = USER) -> User:
        return cls(name, secrets.token_urlsafe(PASSWORD_BYTES))


@dataclass(frozen=True, slots=True)
class Files:
    """Where things lie; PEM, but for the stores, which are PKCS12 for Java."""

    directory: Path

    @property
    def ca(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def server(self) -> Path:
        """The certificates and the key, in one."""
        return self.directory / "server.pem"

    @property
    def server_store(self) -> Path:
        return self.directory / "server.p12"

    @property
    def trust_store(self) -> Path:
        return self.directory / "trust.p12"

    @property
    def client_certificate(self) -> Path:
        return self.directory / "client.pem"

    @property
    def client_key(self) -> Path:
        return self.directory / "client.key"

    def url_options(self, *, client: bool) -> dict[str, str]:
        """For a URL of unimq's."""
        options = {"ca": str(self.ca)}
        if client:
            options |= {"cert": str(self.client_certificate), "key": str(self.client_key)}
        return options


class Authority:
    """A CA for one run. What it issues is valid for a day, unless it is to be expired."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, f"unimq test CA {secrets.token_hex(4)}")]
        )
        signing = x509.KeyUsage(**{name: name in ("key_cert_sign", "crl_sign") for name in _KEY_USAGES})
        self._ca = self._signed(
            self._builder(self._name, self._key.public_key(), expired=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(signing, critical=True)
        )

    def equip(self, directory: Path) -> Files:
        """All that a broker and its client need, into `directory`."""
        directory.mkdir(mode=0o700)
        files = Files(directory)
        write_whole(files.ca, self._ca.public_bytes(Encoding.PEM))
        self.issue_server(files)
        self.issue_client(files)
        return files

    def issue_server(self, files: Files, *names: str, expired: bool = False) -> None:
        """A fresh certificate for the broker, in place of the one that is there."""
        key, certificate = self._leaf(
            ExtendedKeyUsageOID.SERVER_AUTH, "unimq test broker", names or SERVER_NAMES, expired
        )
        write_whole(files.server, _pem(key) + certificate.public_bytes(Encoding.PEM))
        # For Java. Its `keytool` takes a second for each; this takes none.
        lock = BestAvailableEncryption(STORE_PASSWORD.encode())
        write_whole(
            files.server_store,
            pkcs12.serialize_key_and_certificates(b"server", key, certificate, [self._ca], lock),
        )
        trusted = [pkcs12.PKCS12Certificate(self._ca, b"ca")]
        write_whole(files.trust_store, pkcs12.serialize_java_truststore(trusted, lock))

    def issue_client(self, files: Files, name: str = CLIENT_NAME, *, expired: bool = False) -> None:
        """A fresh certificate for the client, in place of the one that is there."""
        key, certificate = self._leaf(ExtendedKeyUsageOID.CLIENT_AUTH, name, (), expired)
        write_whole(files.client_key, _pem(key))
        write_whole(files.client_certificate, certificate.public_bytes(Encoding.PEM))

    def _leaf(
        self, use: x509.ObjectIdentifier, common_name: str, names: Iterable[str], expired: bool
    ) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = self._builder(subject, key.public_key(), expired=expired)
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        others = [_general_name(name) for name in names]
        if others:  # critical, or empty, in a client's certificate it is refused by Erlang
            builder = builder.add_extension(x509.SubjectAlternativeName(others), critical=False)
        return key, self._signed(builder)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, expired: bool
    ) -> x509.CertificateBuilder:
        now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
        since, until = (now - 2 * day, now - day) if expired else (now - day, now + day)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(until)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )

    def _signed(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        return builder.sign(self._key, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS8: the one form that all of them read."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_whole(path: Path, data: bytes) -> None:
    """Whoever reads it meanwhile gets the old one or the new one."""
    part = path.with_name(f".{path.name}.part")
    part.touch(mode=0o600)
    part.write_bytes(data)
    part.replace(path)


def query(options: dict[str, str]) -> str:
    """`?name=value…`, or nothing."""
    return f"?{urlencode(options, safe='/')}" if options else ""
