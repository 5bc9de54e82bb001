"""C2PA manifests inside files of the kinds that C2PA binds to.

Source: C2PA specification 2.2, https://spec.c2pa.org.
"""

import io
import json
import struct
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

from avatar3d.provenance import packet
from avatar3d.provenance.signing import Signer, signer, version

__all__ = ["binds", "kind_of", "read", "sign"]

_LABEL = "org.avatar3d.statement"
_KINDS = {
    ".m4v": "video/mp4", ".mov": "video/quicktime", ".mp4": "video/mp4", ".png": "image/png",
}  # fmt: skip
_SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"verify_after_sign": False, "remote_manifest_fetch": False, "ocsp_fetch": False},
}


def binds(path: Path) -> bool:
    """Whether files of this suffix can carry a manifest."""
    return path.suffix.lower() in _KINDS


def kind_of(start: bytes) -> str | None:
    """The media type by the first bytes of a file, or None where C2PA has none."""
    if start[4:8] == b"ftyp":
        return "video/quicktime" if start[8:10] == b"qt" else "video/mp4"
    if start.startswith(b"RIFF"):
        return {b"AVI ": "video/avi", b"WEBP": "image/webp"}.get(start[8:12])
    known = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
    return next((kind for magic, kind in known.items() if start.startswith(magic)), None)


def sign(path: Path, statement: Mapping[str, Any]) -> None:
    """Put a signed manifest with `statement` into the file, in place."""
    import c2pa

    context, key = _tools(signer())
    kind = _KINDS[path.suffix.lower()]
    described = {
        "claim_generator_info": [{"name": "avatar3d", "version": version()}],
        "assertions": [
            {
                "label": "c2pa.actions.v2",
                "data": {
                    "actions": [
                        {
                            "action": "c2pa.created",
                            "digitalSourceType": statement["digitalSourceType"],
                        }
                    ]
                },
            },
            {"label": _LABEL, "data": dict(statement)},
        ],
    }
    try:
        with c2pa.Builder(described, context) as builder:
            if kind == "image/png":
                _rewrite(path, lambda source, target: builder.sign(key, kind, source, target))
            else:
                _replace(path, lambda source, target: builder.sign(key, kind, source, target))
                _append_packet(path, statement)
    except c2pa.C2paError as error:
        raise OSError(f"it cannot be signed ({_line(error)})") from error


def _rewrite(path: Path, sign: Callable[[Any, Any], object]) -> None:
    """In memory: for one picture of many, a second file takes as long as its signature."""
    target = io.BytesIO()
    sign(io.BytesIO(path.read_bytes()), target)
    with open(path, "r+b") as file:  # which only grows
        file.write(target.getbuffer())


def _replace(path: Path, sign: Callable[[Any, Any], object]) -> None:
    """By way of a second file."""
    signed = path.with_name(f"{path.stem}-signed{path.suffix}")
    try:
        with open(path, "rb") as source, open(signed, "w+b") as target:
            sign(source, target)
        path.unlink()  # renaming over it would wait for the disk; it is not the final file yet
        signed.rename(path)
    finally:
        signed.unlink(missing_ok=True)


@cache
def _tools(who: Signer) -> tuple[Any, Any]:
    """The library's settings and signer, which take longer to make than a signature."""
    import c2pa

    information = c2pa.C2paSignerInfo(who.algorithm, who.chain, who.key, None)
    context = c2pa.Context(c2pa.Settings.from_dict(_SETTINGS))
    return context, c2pa.Signer.from_info(information)


def read(path: Path, kind: str) -> tuple[str, str, dict[str, Any]] | None:
    """State ("valid" or why it is altered), signer and statement; None without a manifest."""
    import c2pa

    try:
        with (
            c2pa.Context(c2pa.Settings.from_dict(_SETTINGS)) as context,
            open(path, "rb") as file,
            c2pa.Reader(kind, file, context=context) as reader,
        ):
            state = reader.get_validation_state()
            manifest = reader.get_active_manifest() or {}
            told = json.loads(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return None
    except (c2pa.C2paError, ValueError, KeyError) as error:
        return f"its manifest cannot be read ({_line(error)})", "unknown", {}
    who = str(manifest.get("signature_info", {}).get("issuer", "unknown"))
    said = [a["data"] for a in manifest.get("assertions", []) if a.get("label") == _LABEL]
    statement = dict(said[0]) if said and isinstance(said[0], dict) else _foreign(manifest)
    if state not in ("Valid", "Trusted"):
        codes = [str(status.get("code")) for status in told.get("validation_status", [])]
        wrong = [code for code in codes if code != "signingCredential.untrusted"]
        return f"the signature does not fit ({', '.join(wrong) or state})", who, statement
    if said and not _whole(path, kind):
        return "bytes outside the signature were changed", who, statement
    return "valid", who, statement


def _foreign(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest of other software says about the source."""
    for assertion in manifest.get("assertions", []):
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            for action in assertion.get("data", {}).get("actions", []):
                if kind := action.get("digitalSourceType"):
                    return {"digitalSourceType": kind}
    return {}


def _append_packet(path: Path, statement: Mapping[str, Any]) -> None:
    """Add a box that the manifest's hash leaves out, with a seal of everything else."""
    text = packet.packet(statement).encode()
    with open(path, "ab") as file:
        file.write(struct.pack(">I4s", 8 + len(text), b"free") + text)
    packet.seal(path)


def _whole(path: Path, kind: str) -> bool:
    """Whether those bytes are as they were written that a manifest does not protect.

    They are in the manifest's own frame and padding: a PNG has checksums of them, an MP4 our seal.
    """
    if kind == "image/png":
        return _checksums_fit(path)
    found = packet.read(path)
    return found is not None and found[0] == "valid"


def _checksums_fit(path: Path) -> bool:
    data, place = memoryview(path.read_bytes()), 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if int.from_bytes(data[end : end + 4], "big") != crc32(data[place + 4 : end]):
            return False
        place = end + 4
    return place == len(data)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
