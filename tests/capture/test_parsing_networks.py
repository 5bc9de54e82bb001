"""The optional networks, stood in for by small ones of the same shape; no weights are needed."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from avatar3d.assets.manifest import manifest
from avatar3d.capture import CaptureConfig
from avatar3d.capture.clip_colors import learn_colors
from avatar3d.capture.parsing import Observed, parse_frame
from avatar3d.capture.parsing_networks import (
    ASSETS,
    BiSeNet,
    Multiclass,
    choose_parser,
    open_network,
)  # fmt: skip
from avatar3d.errors import UserError
from avatar3d.subject import PARSING_LABELS
from avatar3d.synth.clip import to_bytes

LABEL = {name: index for index, name in enumerate(PARSING_LABELS)}
SKIN, EAR, CLOTH, HAIR = 1, 7, 16, 17  # of CelebAMask-HQ
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def field(number: int, value: bytes | int | str) -> bytes:
    """One field of a protobuf message."""

    def varint(rest: int) -> bytes:
        high, low = divmod(rest, 128)
        return bytes([low | 128]) + varint(high) if high else bytes([low])

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor_info(name: str, shape: tuple[int, ...]) -> bytes:
    dimensions = b"".join(field(1, field(1, side)) for side in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dimensions)))


def onnx_file(path: Path, classes: int = 19, side: int = 512) -> Path:
    """A 1x1 convolution that reads the class off the colour: blue hair, green clothes, red ears."""
    kernel = np.zeros((classes, 3, 1, 1), np.float32)
    for channel, row in ((2, HAIR), (1, CLOTH), (0, EAR)):
        kernel[row % classes, channel] = 40 * DEVIATION[channel]
    bias = np.full(classes, -60, np.float32)
    for channel, row in ((2, HAIR), (1, CLOTH), (0, EAR)):
        bias[row % classes] = 40 * MEAN[channel] - 20
    bias[SKIN] = 0
    weights = b"".join(
        field(5, b"".join(field(1, n) for n in array.shape) + field(2, 1) + field(8, name)
              + field(9, array.tobytes()))
        for name, array in (("kernel", kernel), ("bias", bias))
    )  # fmt: skip
    node = b"".join(field(1, n) for n in ("image", "kernel", "bias")) + field(2, "classes")
    graph = field(1, node + field(4, "Conv")) + field(2, "tiny") + weights
    graph += field(11, tensor_info("image", (1, 3, side, side)))
    graph += field(12, tensor_info("classes", (1, classes, side, side)))
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(2, 13)))
    return path


def painted(person, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A made-up person in grey, but with hair, clothes and ears in the tiny network's colours."""
    drawn = person.picture(index)
    image = np.full((*drawn.label.shape, 3), 90, np.uint8)
    for name, channel in (("hair", 2), ("clothes", 1), ("ears", 0)):
        image[drawn.label == LABEL[name], channel] = 250
    return image, to_bytes(drawn.alpha), person.landmarks[index]


def test_bisenet_says_what_is_where(person, tmp_path):
    """Through ONNX Runtime: the square is cut out, normalised, read and put back in place."""
    image, _, points = painted(person, 16)
    truth = person.picture(16).label[::2, ::2]
    opinion = open_network("bisenet", onnx_file(tmp_path / "tiny.onnx"))(image, points)
    assert opinion.scores.shape == (3, *truth.shape)
    assert not opinion.known.all(), "the corners of the picture are outside the square"
    best = opinion.scores.argmax(0)
    for kind, name in ((1, "hair"), (2, "clothes")):
        own, wanted = (best == kind) & opinion.known, (truth == LABEL[name]) & opinion.known
        assert wanted.sum() > 100
        assert (own & wanted).sum() / (own | wanted).sum() > 0.9, name
    wanted = (truth == LABEL["ears"]) & opinion.known
    assert (opinion.ears & wanted).sum() / (opinion.ears | wanted).sum() > 0.6


def test_a_network_decides_instead_of_the_colours(person, tmp_path):
    image, matte, points = painted(person, 16)
    truth = person.picture(16).label
    network = open_network("bisenet", onnx_file(tmp_path / "tiny.onnx"))
    plain = to_bytes(person.picture(16).image)
    colors = learn_colors([(plain, matte, points)])
    labels = parse_frame(Observed(plain, matte, points, opinion=network(image, points)), colors)
    for name, least in (("hair", 0.9), ("clothes", 0.9), ("ears", 0.6)):
        own, wanted = labels == LABEL[name], truth == LABEL[name]
        assert (own & wanted).sum() / (own | wanted).sum() > least, name
    eyes = np.isin(labels, [LABEL["left_eye"], LABEL["right_eye"]])
    assert eyes.any(), "landmarks still place the eyes"


def test_multiclass_masks_become_skin_hair_and_clothes():
    masks = np.full((6, 8, 8), 0.01, np.float32)
    for row, rows in ((1, slice(0, 2)), (3, slice(2, 4)), (2, slice(4, 6)), (4, slice(6, 8))):
        masks[row, rows] = 0.95
    opinion = Multiclass(lambda image: masks, Path("net.tflite"))(
        np.zeros((16, 16, 3), np.uint8), None
    )
    assert opinion.scores.argmax(0)[:, 0].tolist() == [1, 1, 0, 0, 0, 0, 2, 2]
    assert opinion.known.all()
    with pytest.raises(UserError, match="classes instead of 6"):
        Multiclass(lambda image: masks[:2], Path("net.tflite"))(
            np.zeros((16, 16, 3), np.uint8), None
        )


@pytest.mark.parametrize("shape", [{"classes": 6}, {"side": 256}])
def test_other_networks_are_refused(tmp_path, shape):
    path = onnx_file(tmp_path / "other.onnx", **shape)
    with pytest.raises(UserError, match="a face parsing network maps 1x3x512x512"):
        open_network("bisenet", path)


def test_free_dimensions_are_allowed_and_the_answer_is_checked():
    tensor = SimpleNamespace(name="t", type="tensor(float)", shape=["n", 3, None, None])
    answer = SimpleNamespace(name="a", type="tensor(float)", shape=["n", 19, "h", "w"])
    session = SimpleNamespace(
        get_inputs=lambda: [tensor],
        get_outputs=lambda: [answer, answer],
        run=lambda names, feed: [np.zeros((1, 7, 4, 4), np.float32)],
    )
    network = BiSeNet(session, Path("net.onnx"))
    points = np.zeros((478, 2))
    points[152] = [0, 50]
    with pytest.raises(UserError, match="gives 1x7x4x4 instead of 1x19xHxW"):
        network(np.zeros((64, 64, 3), np.uint8), points)


@pytest.mark.parametrize("kind", ["multiclass", "bisenet"])
def test_a_file_of_something_else_is_one_clear_error(tmp_path, kind):
    if kind == "multiclass":
        pytest.importorskip("mediapipe")
    path = tmp_path / "model"
    path.write_bytes(b"not a network" * 100)
    with pytest.raises(UserError, match="is not a"):
        open_network(kind, path)


def test_which_network_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("AVATAR3D_CACHE", str(tmp_path / "cache"))
    assert choose_parser(CaptureConfig()).name == "", "auto, with nothing fetched"
    assert choose_parser(CaptureConfig(parsing="default")).make is None
    with pytest.raises(UserError, match="There is no parsing network"):
        choose_parser(CaptureConfig(parsing="bisenet", parsing_model=str(tmp_path / "none.onnx")))
    path = onnx_file(tmp_path / "tiny.onnx")
    choice = choose_parser(CaptureConfig(parsing="bisenet", parsing_model=str(path)))
    assert choice.name.startswith("bisenet ")
    assert choice.make is not None
    assert isinstance(choice.make(), BiSeNet)
    with pytest.raises(UserError, match="must be one of"):
        CaptureConfig(parsing="other")
    with pytest.raises(UserError, match="parsing_model needs"):
        CaptureConfig(parsing_model=str(path))


def test_a_missing_network_says_how_to_get_it(tmp_path, monkeypatch):
    import avatar3d.assets.sources as sources

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setenv("AVATAR3D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources.urllib.request, "urlopen", offline)
    for kind, asset in ASSETS.items():
        assert asset in manifest()
        with pytest.raises(UserError, match=f"avatar3d assets import {asset} FILE"):
            choose_parser(CaptureConfig(parsing=kind))


def test_a_segmentation_of_other_classes_is_refused():
    """Through MediaPipe itself, with the model of one class that its wheel carries."""
    mediapipe = pytest.importorskip("mediapipe")
    folder = Path(mediapipe.__file__).parent / "modules/selfie_segmentation"
    path = folder / "selfie_segmentation.tflite"
    if not path.is_file():
        pytest.skip("this mediapipe carries no models")
    network = open_network("multiclass", path)
    with pytest.raises(UserError, match="gives 1 classes instead of 6"):
        network(np.zeros((64, 48, 3), np.uint8), np.zeros((478, 2)))
