"""The key that signs statements: the person's own, or one made on this machine at its first use."""

import datetime
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from avatar3d.errors import UserError
from avatar3d.io.atomic import atomic_folder
from avatar3d.progress import say

__all__ = ["Signer", "signer", "signing_folder", "version"]

_KEY, _CHAIN = "key.pem", "chain.pem"
_YEARS = 10
_NAME = "avatar3d, a key made on the user's machine"


@dataclass(frozen=True)
class Signer:
    """A private key and the certificates that go with it, the signer's own first; both PEM."""

    key: bytes
    chain: bytes

    @property
    def algorithm(self) -> str:
        """Name of the signature algorithm in C2PA: ed25519, es256 or es384."""
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if b"ENCRYPTED" in self.key:
            raise UserError(f"{signing_folder() / _KEY} needs a password; give a key without one.")
        private = self._private()
        if isinstance(private, Ed25519PrivateKey):
            return "ed25519"
        if isinstance(private, EllipticCurvePrivateKey) and private.curve.key_size in (256, 384):
            return f"es{private.curve.key_size}"
        raise UserError(
            f"{signing_folder() / _KEY} is of an unknown kind; give an Ed25519, P-256 or P-384 key."
        )

    @property
    def certificate(self) -> bytes:
        """The signer's own certificate, DER."""
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding

        return x509.load_pem_x509_certificates(self.chain)[0].public_bytes(Encoding.DER)

    def sign(self, data: bytes) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

        if self.algorithm == "ed25519":
            return self._private().sign(data)
        return self._private().sign(data, ECDSA(hashes.SHA256()))

    def _private(self) -> Any:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            return load_pem_private_key(self.key, None)
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{signing_folder() / _KEY} is not a private key in PEM; replace or remove it."
            ) from error


def signing_folder() -> Path:
    """AVATAR3D_SIGNING, or the platform's folder for settings; holds key.pem and chain.pem."""
    chosen = os.environ.get("AVATAR3D_SIGNING")
    if chosen:
        return Path(chosen).expanduser()
    if os.name == "nt":
        base = Path(os.environ.get("APPDATA", Path.home() / "AppData" / "Roaming"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return base / "avatar3d" / "signing"


@cache
def version() -> str:
    """That of the installed package."""
    from importlib import metadata

    try:
        return metadata.version("avatar3d")
    except metadata.PackageNotFoundError:  # run from a source tree
        return "unknown"


def signer() -> Signer:
    """The signer of this machine, made and kept if there is none yet."""
    return _signer(signing_folder())


@cache
def _signer(folder: Path) -> Signer:
    try:
        return Signer((folder / _KEY).read_bytes(), (folder / _CHAIN).read_bytes())
    except FileNotFoundError:
        made = _generate()
    except OSError as error:
        raise UserError(
            f"Cannot read the signing key in {folder}: {error.strerror}; mend its permissions."
        ) from error
    try:
        with atomic_folder(folder) as temporary:
            temporary.chmod(0o700)
            for name, data in ((_KEY, made.key), (_CHAIN, made.chain)):
                with open(os.open(temporary / name, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
                    file.write(data)
    except (OSError, UserError) as error:
        say(f"The signing key cannot be kept in {folder} ({error}); this process has its own.")
    return made


def _generate() -> Signer:
    """A certificate of its own authority: C2PA accepts none that signed itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    root, own = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)

    def certified(key: Ed25519PrivateKey, role: str, authority: bool) -> bytes:
        def name(role: str) -> x509.Name:
            said = ((NameOID.ORGANIZATION_NAME, _NAME), (NameOID.COMMON_NAME, role))
            return x509.Name([x509.NameAttribute(kind, text) for kind, text in said])

        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        builder = (
            x509.CertificateBuilder(name("root"), name(role), key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=365 * _YEARS))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(
                x509.KeyUsage(True, key_cert_sign=authority, crl_sign=authority, **usage),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False
            )
        )
        if not authority:
            purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(purpose, False)
        return builder.sign(root, None).public_bytes(Encoding.PEM)

    chain = certified(own, "signer", False) + certified(root, "root", True)
    key = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Signer(key, chain)
