"""The page as a file: what it refers to, what it may run, and what it carries."""

import base64
import hashlib
import json
import re
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from avatar3d.avatar import SplatAvatar, SplatState
from avatar3d.errors import UserError
from avatar3d.export import export
from avatar3d.export.payload import Payload, decode_state, encode_state

HOSTILE = 'A </title></script><script>alert(1)</script> & "B" {{script}}'


class Elements(HTMLParser):
    """Every element as (tag, attributes, text)."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[list] = []
        self.within = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.found.append([tag, dict(attributes), ""])
        self.within = True

    def handle_endtag(self, tag: str) -> None:
        self.within = False

    def handle_data(self, data: str) -> None:
        if self.within:
            self.found[-1][2] += data

    def all(self, tag: str) -> list[list]:
        return [element for element in self.found if element[0] == tag]


@pytest.fixture(scope="module")
def page(avatar: SplatAvatar, tmp_path_factory: pytest.TempPathFactory) -> Elements:
    folder = tmp_path_factory.mktemp("page")
    sound = folder / "speech.wav"
    sound.write_bytes(b"RIFF....WAVE")
    path = export(avatar, folder / "face.html", title=HOSTILE, audio=sound)
    return Elements(path.read_text("utf-8"))


def test_nothing_is_loaded_from_elsewhere(page: Elements):
    references = [
        value
        for _, attributes, _ in page.found
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "data", "action", "poster", "style")
    ]
    assert references == ["data:,"]  # the empty icon
    style = page.all("style")[0][2]
    assert not re.search(r"url\(|@import", style)


def test_only_our_script_may_run(page: Elements):
    scripts = [text for _, attributes, text in page.all("script") if "type" not in attributes]
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = next(a["content"] for _, a, _ in page.all("meta") if "http-equiv" in a)
    directives = dict(d.split(maxsplit=1) for d in policy.split("; "))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == f"'sha256-{digest}'"


def test_a_title_is_text_and_stays_text(page: Elements):
    assert page.all("title")[0][2] == HOSTILE
    assert page.all("h1")[0][2] == HOSTILE


def test_every_control_has_a_name(page: Elements):
    """Buttons have text; inputs sit in a label with text or say it themselves."""
    assert all(text.strip() for _, _, text in page.all("button"))
    labels = [i for i, e in enumerate(page.found) if e[0] == "label"]
    inputs = [i for i, e in enumerate(page.found) if e[0] == "input"]
    assert inputs
    named = [i for i in inputs if "aria-label" in page.found[i][1]]
    assert all(i in named or any(0 < i - j <= 2 for j in labels) for i in inputs)


def test_the_payload_holds_the_avatar(avatar: SplatAvatar, page: Elements):
    blobs = {a["id"]: (a, text) for _, a, text in page.all("script") if "id" in a}
    header = json.loads(blobs["avatar-header"][1])
    assert_close(decode_state(header, base64.b64decode(blobs["avatar-data"][1])), avatar.state)
    assert header["motion"] == {"fps": 25, "frames": len(avatar.idle_motion)}
    assert base64.b64decode(blobs["avatar-sound"][1]) == b"RIFF....WAVE"
    assert base64.b64decode(blobs["avatar-plate"][1]).startswith(b"\xff\xd8\xff")


def test_an_avatar_without_blendshapes_survives(avatar: SplatAvatar):
    empty = {f.name: getattr(avatar.state, f.name) for f in fields(SplatState)}
    rows = len(avatar.state.expression) + 4
    empty |= {"basis": np.zeros((0, 10, 0), np.float32), "map": np.zeros((0, rows), np.float32)}
    empty |= {"bias": np.zeros(0, np.float32)}
    state, payload = SplatState(**empty), Payload()
    header = encode_state(state, payload)
    assert_close(decode_state({**header, "arrays": payload.arrays}, payload.compressed()), state)


def test_a_full_avatar_stays_small():
    """25 000 Gaussians on a head as detailed as the default one, 16 blendshapes, random values."""
    rng = np.random.default_rng(0)
    count, vertices, rows, size = 25_000, 14_000, 90, 16
    moved = rng.random((rows, vertices)) < 0.15  # an expression moves a part of the face
    state = SplatState(
        vertices=rng.normal(size=(vertices, 3)),
        expression=rng.normal(0, 0.002, (rows, vertices, 3)) * moved[:, :, None],
        faces=rng.integers(0, vertices, (2 * vertices, 3)).astype(np.int32),
        torso_weight=np.zeros(vertices),
        eye=np.zeros(vertices, np.uint8),
        eye_centers=np.zeros((2, 3)),
        face=rng.integers(-1, 2 * vertices, count).astype(np.int32),
        bary=rng.dirichlet(np.ones(3), count),
        part=np.zeros(count, np.uint8),
        position=rng.normal(size=(count, 3)),
        quat=rng.normal(size=(count, 4)),
        log_scale=rng.normal(size=(count, 3)),
        opacity=rng.normal(size=count),
        color=rng.random((count, 3)),
        basis=rng.normal(size=(count, 10, size)).astype(np.float32),
        map=np.zeros((size, rows + 4)),
        mean=np.zeros(rows + 4),
        bias=np.zeros(size),
        limit=np.array(3.0),
        T_camera_rest=np.eye(4),
        K_matrix=np.eye(3),
        size=np.array([512, 512]),
        torso_map=np.zeros((12, 6)),
        torso_limit=np.zeros(6),
        signal_min=np.zeros(rows + 4),
        signal_max=np.zeros(rows + 4),
    )
    payload = Payload()
    encode_state(state, payload)
    assert len(payload.compressed()) * 4 / 3 < 11e6  # bytes in base64


def test_errors_are_sentences(avatar: SplatAvatar, tmp_path: Path):
    with pytest.raises(UserError, match=r"choose one of gaussian-avatars, glb, html, .*, webm"):
        export(avatar, tmp_path / "a.obj")
    with pytest.raises(UserError, match="Cannot read the sound"):
        export(avatar, tmp_path / "a.html", audio=tmp_path / "none.wav")
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="Cannot write"):
        export(avatar, tmp_path / "file" / "a.html")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def assert_close(back: SplatState, state: SplatState) -> None:
    """Within half a quantisation step of every array."""
    back.validate()
    steps = {
        "expression": np.abs(state.expression).max() / 32767 + 4e-6,  # and 2 um are dropped
        "basis": np.abs(state.basis).max(initial=0) / 120,
        **{
            n: np.ptp(getattr(state, n)) / 65535
            for n in ("bary", "quat", "log_scale", "opacity", "color")
        },
    }
    for f in fields(SplatState):
        value, expected = getattr(back, f.name), np.asarray(getattr(state, f.name))
        tolerance = steps.get(f.name, 0) / 2 + 1e-6
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=tolerance, err_msg=f.name)
