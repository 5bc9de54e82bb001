"""A signed XMP packet for files that C2PA has no place in: HTML, glTF, PLY, Matroska, avatars.

The packet is found by scanning, as XMP foresees. Its attribute `avatar3d:seal` has a fixed width
and holds a signature of the SHA-256 of all other bytes of the file; the signer's certificate and
the statement stand before it.

Source: XMP specification part 1, section 7.3 (packet wrapper); IPTC photo metadata,
https://www.iptc.org/std/photometadata (Digital Source Type).
"""

import base64
import binascii
import hashlib
import json
import mmap
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avatar3d.errors import UserError
from avatar3d.provenance.signing import signer, version

__all__ = ["packet", "read", "seal"]

_WIDTH = 160  # characters of the seal: the longest signature is that of P-384, 104 bytes
_BEFORE, _AFTER = b"avatar3d:seal='", b"'"
_STATEMENT = b"avatar3d:statement='"
_CERTIFICATE = b"avatar3d:certificate='"
_MAX_ATTRIBUTE = 20_000
_LINE_BREAK = b"\ncomment "  # in the header of a PLY, where readers limit the length of a line


def packet(statement: Mapping[str, Any]) -> str:
    """The packet, not yet sealed."""
    said = base64.b64encode(json.dumps(statement, sort_keys=True).encode()).decode()
    certificate = base64.b64encode(signer().certificate).decode()
    return (
        "<?xpacket begin='' id='W5M0MpCehiHzreSzNTczkc9d'?><x:xmpmeta xmlns:x='adobe:ns:meta/'>"
        "<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description "
        "rdf:about='' xmlns:Iptc4xmpExt='http://iptc.org/std/Iptc4xmpExt/2008-02-29/' "
        "xmlns:xmp='http://ns.adobe.com/xap/1.0/' xmlns:avatar3d='urn:avatar3d:provenance:1' "
        f"Iptc4xmpExt:DigitalSourceType='{statement['digitalSourceType']}' "
        f"xmp:CreatorTool='avatar3d {version()}' avatar3d:statement='{said}' "
        f"avatar3d:certificate='{certificate}' avatar3d:seal='{'.' * _WIDTH}'/>"
        "</rdf:RDF></x:xmpmeta><?xpacket end='r'?>"
    )


def seal(path: Path) -> None:
    """Sign the finished file: fill in the seal of its packet.

    Raises:
        UserError: the file holds no packet, because its format dropped it.
    """
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        start = _place(data)
        if start is None:
            raise UserError(
                f"A {path.suffix or 'nameless'} file has no place for the statement that it is "
                "synthetic; choose another format, or --no-provenance."
            )
        signature = base64.b64encode(signer().sign(_digest(data, start)))
        data[start : start + _WIDTH] = signature.ljust(_WIDTH, b".")


def read(path: Path) -> tuple[str, str, dict[str, Any]] | None:
    """State ("valid" or why it is altered), signer and statement; None without a packet."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.x509.oid import NameOID

    if not path.stat().st_size:
        return None
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = _place(data)
        if start is None:
            return None
        try:
            statement = json.loads(_attribute(data, _STATEMENT, start))
            with warnings.catch_warnings():  # of what is odd in somebody's certificate
                warnings.simplefilter("ignore")
                certificate = x509.load_der_x509_certificate(_attribute(data, _CERTIFICATE, start))
            names = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
            who = str(names[0].value) if names else "unknown"
            if not isinstance(statement, dict):
                raise ValueError("its statement is not a table")
        except (
            ValueError, TypeError, RecursionError, UnsupportedAlgorithm, x509.InvalidVersion,
            x509.DuplicateExtension, x509.UnsupportedGeneralNameType,
        ):  # fmt: skip
            return "its statement cannot be read", "unknown", {}
        try:
            signature = _decoded(bytes(data[start : start + _WIDTH]).rstrip(b"."))
            _check(certificate.public_key(), signature, _digest(data, start))
        except (InvalidSignature, UnsupportedAlgorithm, ValueError):
            return "the signature does not fit", who, statement
    return "valid", who, statement


def _check(public: Any, signature: bytes, digest: bytes) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if isinstance(public, Ed25519PublicKey):
        public.verify(signature, digest)
    elif isinstance(public, EllipticCurvePublicKey):
        public.verify(signature, digest, ECDSA(hashes.SHA256()))
    else:
        raise ValueError("a key of an unknown kind")


def _place(data: mmap.mmap) -> int | None:
    """Where the seal begins."""
    found = data.find(_BEFORE)
    start = found + len(_BEFORE)
    whole = found >= 0 and data[start + _WIDTH : start + _WIDTH + 1] == _AFTER
    return start if whole else None


def _attribute(data: mmap.mmap, name: bytes, before: int) -> bytes:
    found = data.rfind(name, max(0, before - 2 * _MAX_ATTRIBUTE), before)
    start = found + len(name)
    end = data.find(b"'", start, start + _MAX_ATTRIBUTE)
    if found < 0 or end < 0:
        raise ValueError("an attribute is missing")
    return _decoded(bytes(data[start:end]).replace(_LINE_BREAK, b""))


def _decoded(text: bytes) -> bytes:
    """Base64 in its one proper spelling: a changed bit that decodes to the same is a change."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
    if base64.b64encode(decoded) != text:
        raise ValueError("not the spelling that encoding gives")
    return decoded


def _digest(data: mmap.mmap, start: int) -> bytes:
    digest = hashlib.sha256()
    view = memoryview(data)
    try:
        digest.update(view[:start])
        digest.update(view[start + _WIDTH :])
    finally:
        view.release()
    return digest.digest()
