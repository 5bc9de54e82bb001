"""Every file we write says that it is synthetic, and no byte of it changes unnoticed."""

import json
from pathlib import Path

import av
import c2pa
import numpy as np
import pytest
from PIL import Image

from avatar3d.avatar import SplatAvatar, SplatState, load
from avatar3d.errors import UserError
from avatar3d.export import export
from avatar3d.io.video import write_video
from avatar3d.motion import Motion
from avatar3d.provenance import declared_write, verify, without_provenance
from avatar3d.provenance.signing import signing_folder
from avatar3d.rendering import render
from avatar3d.training.events import Preview
from avatar3d.training.listeners import PreviewWriter

SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
CONSENT = {"who": "Ada", "scope": "tests", "date": "2026-01-02", "sha256": "ab" * 32}
FORMATS = ("a3d", "glb", "html", "jpg", "mkv", "moving.glb", "mov", "mp4", "ply", "png")


@pytest.fixture
def small_avatar(small_state: SplatState) -> SplatAvatar:
    rng = np.random.default_rng(0)
    height, width = int(small_state.size[1]), int(small_state.size[0])
    return SplatAvatar(
        state=small_state,
        background=rng.integers(0, 255, (height, width, 3), np.uint8),
        idle_motion=Motion(fps=25, expression=rng.random((3, 52)).astype(np.float32)),
        driver=None,
        info={"name": "nobody", "train_frames": 3, "source_sha256": "12" * 32, "consent": CONSENT},
    )


def written(avatar: SplatAvatar, folder: Path, kind: str) -> Path:
    """A file of that kind by the public function that writes it."""
    path = folder / f"file.{kind}"
    if kind == "a3d":
        avatar.save(path)
    elif kind in ("mp4", "mov", "mkv"):
        render(avatar, avatar.idle_motion, path)
    elif kind == "jpg":
        PreviewWriter(folder)(Preview(0, 0, avatar.render()))
        path = folder / "preview.jpg"
    elif kind == "png":
        export(avatar, folder / "pictures", format="png")
        path = folder / "pictures" / "000001.png"
    else:
        moving = {"motion": avatar.idle_motion} if kind.startswith("moving") else {}
        export(avatar, path, **moving)
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_writers_sign_and_one_flipped_byte_shows(
    small_avatar: SplatAvatar, tmp_path: Path, kind: str
) -> None:
    path = written(small_avatar, tmp_path, kind)
    verdict = verify(path)
    assert verdict.state == "valid", verdict
    assert verdict.statement["digitalSourceType"] == SOURCE
    if kind not in ("jpg",):
        assert verdict.statement["source_sha256"] == "12" * 32
        assert verdict.statement["consent"]["scope"] == "tests"
        assert (verdict.statement["consent"].get("who") == "Ada") == (kind == "a3d")
    data = path.read_bytes()
    rng = np.random.default_rng(1)
    # Where formats keep their structure, and places all over the file.
    places = {*range(0, 80, 3), *range(len(data) - 40, len(data), 3)}
    places |= set(rng.integers(0, len(data), 150).tolist())
    copy = tmp_path / f"copy{path.suffix}"
    for place in sorted(places):
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        copy.write_bytes(damaged)
        assert verify(copy).state != "valid", f"byte {place} of {len(data)}"


def test_files_remain_what_they_are(small_avatar: SplatAvatar, tmp_path: Path) -> None:
    """Independent readers open the signed files."""
    plyfile, trimesh = pytest.importorskip("plyfile"), pytest.importorskip("trimesh")
    assert load(written(small_avatar, tmp_path, "a3d")).info["consent"] == CONSENT
    vertices = plyfile.PlyData.read(written(small_avatar, tmp_path, "ply"))["vertex"]
    assert len(vertices) == len(small_avatar.state)
    assert len(trimesh.load(written(small_avatar, tmp_path, "glb")).geometry) == 1
    with Image.open(written(small_avatar, tmp_path, "png")) as picture:
        assert (picture.size, picture.mode) == ((96, 80), "RGBA")
    for kind in ("mp4", "mov", "mkv"):
        with av.open(str(written(small_avatar, tmp_path, kind))) as video:
            assert len(list(video.decode(video=0))) == 3


@pytest.mark.parametrize("kind", ["mp4", "png"])
def test_c2pa_software_reads_the_manifest(
    small_avatar: SplatAvatar, tmp_path: Path, kind: str
) -> None:
    """The reference implementation alone, without our reader."""
    path = written(small_avatar, tmp_path, kind)
    plain = tmp_path / f"plain.{kind}"
    with without_provenance():
        if kind == "mp4":
            render(small_avatar, small_avatar.idle_motion, plain)
        else:
            export(small_avatar, tmp_path / "p", format="png")
            plain = tmp_path / "p" / "000001.png"
    with c2pa.Reader(path) as reader:
        assert reader.get_validation_state() == "Valid"
        actions = json.loads(reader.json())["manifests"].values()
    assert SOURCE in json.dumps(list(actions))
    assert 0 < path.stat().st_size - plain.stat().st_size < 10_000


def test_leaving_it_out_is_told_and_logged(
    small_avatar: SplatAvatar, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in FORMATS:
        with without_provenance():
            path = written(small_avatar, tmp_path, kind)
        assert verify(path).state == "none", kind
    assert capsys.readouterr().err.count("--no-provenance") >= len(FORMATS) - 1
    log = (signing_folder() / "no-provenance.log").read_text()
    assert str(tmp_path / "file.mp4") in log
    assert verify(written(small_avatar, tmp_path, "mp4")).state == "valid"  # on again afterwards


def test_the_key_is_private_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVATAR3D_SIGNING", str(tmp_path / "deep" / "signing"))
    declared_write(tmp_path / "a.png", png())
    key = tmp_path / "deep" / "signing" / "key.pem"
    assert key.stat().st_mode & 0o077 == 0
    before = key.read_bytes()
    declared_write(tmp_path / "b.png", png())
    assert key.read_bytes() == before


@pytest.mark.parametrize("curve", ["SECP256R1", "SECP384R1"])
def test_a_key_of_ones_own(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_avatar: SplatAvatar,
    curve: str,
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for name, data in zip(("key.pem", "chain.pem"), own_key(curve), strict=True):
        (folder / name).write_bytes(data)
    monkeypatch.setenv("AVATAR3D_SIGNING", str(folder))
    for kind in ("png", "html"):
        verdict = verify(written(small_avatar, tmp_path, kind))
        assert (verdict.state, verdict.signer) == ("valid", "Somebody"), verdict


def test_formats_without_a_place_are_refused(tmp_path: Path) -> None:
    frames = [np.zeros((32, 32, 3), np.uint8)] * 3
    with pytest.raises(UserError, match="no place"):
        write_video(tmp_path / "a.ts", frames, 25)
    assert list(tmp_path.iterdir()) == []


def test_recorded_pictures_are_not_called_synthetic(tmp_path: Path) -> None:
    frames = [np.zeros((32, 32, 3), np.uint8)] * 3
    write_video(tmp_path / "a.mp4", frames, 25, synthetic=False)
    assert verify(tmp_path / "a.mp4").state == "none"


def test_a_statement_of_another_file_does_not_fit(
    small_avatar: SplatAvatar, tmp_path: Path
) -> None:
    page = written(small_avatar, tmp_path, "html").read_text()
    packet = page[page.index("<?xpacket begin") : page.index("<?xpacket end")]
    (tmp_path / "other.html").write_text(f"<html><!-- {packet} --></html>")
    assert verify(tmp_path / "other.html").state == "altered"


def png() -> bytes:
    import io

    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "PNG")
    return buffer.getvalue()


def own_key(curve: str) -> tuple[bytes, bytes]:
    """A key and its chain, made as `signing` makes them but of another kind."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    root, own = (ec.generate_private_key(getattr(ec, curve)()) for _ in range(2))
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    chain = b""
    for key, name, authority in ((own, "Somebody", False), (root, "Root", True)):
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Root")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(authority, None), True)
            .add_extension(
                x509.KeyUsage(True, key_cert_sign=authority, crl_sign=authority, **usage), True
            )
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False
            )
        )
        chain += certificate.sign(root, hashes.SHA256()).public_bytes(form.Encoding.PEM)
    key_form = (form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    return own.private_bytes(*key_form), chain
