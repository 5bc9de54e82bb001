"""Stages that make pictures: frames, mattes, labels and the empty background."""

import numpy as np

from avatar3d.capture.check_stage import frame_checks, good_frames
from avatar3d.capture.matte import Segmenter, refine_matte
from avatar3d.capture.parallel import Spares, parallel_map, silenced
from avatar3d.capture.parsing import learn_colors, parse_frame
from avatar3d.capture.plate import background_plate
from avatar3d.capture.workspace import Workspace, spread
from avatar3d.head import ShapedHead
from avatar3d.head.model import PARTS
from avatar3d.io.images import write_image
from avatar3d.io.video import read_frames
from avatar3d.progress import track

__all__ = ["decode", "matte", "parsing", "plate"]

_COLOR_FRAMES = 24
_PLATE_FRAMES = 90


def decode(workspace: Workspace) -> None:
    """frames/: constant rate, cropped, resized."""
    import cv2

    config = workspace.config
    workspace.path("frames").mkdir(parents=True, exist_ok=True)
    left, top, width, height = workspace.state.facts["crop"]
    size = (workspace.width, workspace.height)

    def store(item: tuple[int, np.ndarray]) -> None:
        index, image = item
        path = workspace.frame_path(index)
        if path.is_file():
            return
        image = image[top : top + height, left : left + width]
        if (width, height) != size:
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        write_image(path, np.ascontiguousarray(image))

    expected = len(frame_checks(workspace).reasons)
    images = enumerate(read_frames(workspace.source, workspace.fps, config.start, config.duration))
    stored = parallel_map(store, images, workspace.workers)
    workspace.state.facts["frames"] = sum(1 for _ in track(stored, "Reading the video", expected))


def matte(workspace: Workspace) -> None:
    """mattes/: 8-bit alpha."""
    workspace.path("mattes").mkdir(parents=True, exist_ok=True)
    with silenced():
        segmenters = Spares(Segmenter, workspace.workers)

    def work(index: int) -> None:
        path = workspace.matte_path(index)
        if not path.is_file():
            image = workspace.frame(index)
            with segmenters.borrow() as segment:
                probability = segment(image)
            write_image(path, refine_matte(image, probability))

    done = parallel_map(work, range(workspace.frames), workspace.workers)
    for _ in track(done, "Cutting out the person", workspace.frames):
        pass


def parsing(workspace: Workspace) -> None:
    """parsing/: label images."""
    workspace.path("parsing").mkdir(parents=True, exist_ok=True)
    data, fitted = workspace.load_arrays("landmarks"), workspace.load_arrays("refine")
    points, found = fitted["points"], data["found"]  # calmer in time than what was detected
    usable = good_frames(workspace, found)
    chosen = usable[spread(len(usable), _COLOR_FRAMES)]
    colors = learn_colors((workspace.frame(i), workspace.matte(i), points[i]) for i in chosen)
    shaped = workspace.head.shaped(fitted["identity"], fitted["offsets"])
    size = workspace.width, workspace.height

    def work(index: int) -> None:
        path = workspace.parsing_path(index)
        if path.is_file():
            return
        labels = np.zeros((workspace.height, workspace.width), np.uint8)
        if found[index]:
            ears = ear_mask(shaped, fitted["poses"][index], workspace.K, *size)
            image, alpha = workspace.frame(index), workspace.matte(index)
            labels = parse_frame(image, alpha, points[index], colors, ears)
        write_image(path, labels)

    done = parallel_map(work, range(workspace.frames), workspace.workers)
    for _ in track(done, "Labelling the picture", workspace.frames):
        pass


def ear_mask(
    shaped: ShapedHead, pose: np.ndarray, K: np.ndarray, width: int, height: int
) -> np.ndarray:
    """(H, W) bool: pixels where the fitted head shows an ear; rendered at a third of the size."""
    import cv2

    from avatar3d.kernels import rasterize_mesh

    model = shaped.model
    camera = shaped.vertices @ pose[:3, :3].T + pose[:3, 3]
    pixels = camera @ K.T
    points = np.column_stack([pixels[:, :2] / pixels[:, 2:] / 3, camera[:, 2]]).astype(np.float32)
    size = (-(-width // 3), -(-height // 3))
    face, _, _ = rasterize_mesh(points, model.faces, *size)
    is_ear = (model.part[model.faces] == PARTS.index("ears")).sum(1) >= 2
    seen = (is_ear[face] & (face >= 0)).astype(np.uint8)
    full = cv2.resize(seen, (size[0] * 3, size[1] * 3), interpolation=cv2.INTER_NEAREST)
    return full[:height, :width] > 0


def plate(workspace: Workspace) -> None:
    """background.png."""
    usable = good_frames(workspace, frame_checks(workspace).shows_person)
    samples = usable[spread(len(usable), _PLATE_FRAMES)]
    pairs = parallel_map(
        lambda i: (workspace.frame(i), workspace.matte(i)), samples.tolist(), workspace.workers
    )
    image, seen = background_plate(pairs)
    workspace.state.facts["background_seen"] = float(seen.mean())
    write_image(workspace.path("background.png"), image)
