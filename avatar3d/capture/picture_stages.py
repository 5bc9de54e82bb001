"""Stages that make pictures: frames, mattes, labels and the empty background."""

import numpy as np

from avatar3d.capture.check_stage import frame_checks, good_frames
from avatar3d.capture.clip_colors import learn_colors
from avatar3d.capture.matte import Segmenter, refine_matte
from avatar3d.capture.parallel import Spares, parallel_map, silenced
from avatar3d.capture.parsing import Observed, parse_frames
from avatar3d.capture.parsing_networks import choose_parser
from avatar3d.capture.plate import background_plate
from avatar3d.capture.workspace import Workspace, spread
from avatar3d.head import ShapedHead
from avatar3d.head.model import PARTS
from avatar3d.io.images import write_image
from avatar3d.io.video import ShownFrame, scan_frames
from avatar3d.progress import track

__all__ = ["decode", "matte", "parsing", "plate"]

_COLOR_FRAMES = 24
_PLATE_FRAMES = 90
_MOVING = 0.12
"""Share of the background that moves, from which on a person is told; the check has the same."""
_RUN = 32
"""Frames labelled one after the other, each with a look at its neighbours."""


def decode(workspace: Workspace) -> None:
    """frames/: constant rate, cropped, resized."""
    import cv2

    config = workspace.config
    workspace.path("frames").mkdir(parents=True, exist_ok=True)
    left, top, width, height = workspace.state.facts["crop"]
    size = (workspace.width, workspace.height)

    def store(shown: ShownFrame) -> int:
        numbers = range(shown.index, shown.index + shown.count)
        paths = [path for n in numbers if not (path := workspace.frame_path(n)).is_file()]
        if paths:
            image = shown.image[top : top + height, left : left + width]
            if (width, height) != size:
                image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        for path in paths:
            write_image(path, np.ascontiguousarray(image))
        return shown.count

    expected = len(frame_checks(workspace).reasons)
    shown = scan_frames(workspace.source, workspace.fps, config.start, config.duration)
    stored = parallel_map(store, shown, workspace.workers)
    workspace.state.facts["frames"] = sum(track(stored, "Reading the video", expected))


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
    find_ears = EarFinder(shaped, workspace.K, workspace.width, workspace.height)
    shots = frame_checks(workspace).segments
    make = choose_parser(workspace.config).make
    with silenced():
        networks = Spares(make, workspace.workers) if make is not None else None

    def observe(index: int) -> Observed | None:
        if not found[index]:
            return None
        image, alpha = workspace.frame(index), workspace.matte(index)
        ears, opinion = find_ears(fitted["poses"][index]), None
        if networks is not None:
            with networks.borrow() as network:
                opinion = network(image, points[index])
        return Observed(image, alpha, points[index], ears, int(shots[index]), opinion)

    def work(frames: range) -> int:
        if not all(workspace.parsing_path(i).is_file() for i in frames):
            labelled = parse_frames(observe, frames, workspace.frames, colors)
            nothing = np.zeros((workspace.height, workspace.width), np.uint8)
            for index, labels in zip(frames, labelled, strict=True):
                write_image(workspace.parsing_path(index), nothing if labels is None else labels)
        return len(frames)

    parts = (
        range(first, min(first + _RUN, workspace.frames))
        for first in range(0, workspace.frames, _RUN)
    )
    done = parallel_map(work, parts, workspace.workers)
    every = (None for count in done for _ in range(count))
    for _ in track(every, "Labelling the picture", workspace.frames):
        pass


class EarFinder:
    """Where the fitted head shows an ear: pose (4, 4) to (h, w) bool, a third of the frame's size.

    Args:
        shaped: the fitted head.
        K: (3, 3); width, height: of the frame, in pixels.
    """

    def __init__(self, shaped: ShapedHead, K: np.ndarray, width: int, height: int) -> None:
        model, points = shaped.model, shaped.vertices
        is_ear = model.part == PARTS.index("ears")
        near = np.isin(
            model.part, [PARTS.index(name) for name in ("ears", "face", "scalp", "neck")]
        )
        faces = model.faces[near[model.faces].all(1)]
        used, corners = np.unique(faces, return_inverse=True)
        self._points, self._K = points[used], K
        self._faces = corners.reshape(-1, 3).astype(np.int32)
        self._is_ear = np.append(is_ear[faces].sum(1) >= 2, False)  # -1 is no triangle
        self._size = (-(-width // 3), -(-height // 3))

    def __call__(self, pose: np.ndarray) -> np.ndarray:
        from avatar3d.kernels import rasterize_mesh

        camera = self._points @ pose[:3, :3].T + pose[:3, 3]
        pixels = camera @ self._K.T
        points = np.column_stack([pixels[:, :2] / pixels[:, 2:] / 3, camera[:, 2]])
        face, _, _ = rasterize_mesh(points.astype(np.float32), self._faces, *self._size)
        return self._is_ear[face]


def plate(workspace: Workspace) -> None:
    """background.png."""
    usable = good_frames(workspace, frame_checks(workspace).shows_person)
    samples = usable[spread(len(usable), _PLATE_FRAMES)]
    pairs = parallel_map(
        lambda i: (workspace.frame(i), workspace.matte(i)), samples.tolist(), workspace.workers
    )
    found = background_plate(pairs, workspace.workers)
    workspace.state.facts["background_seen"] = float(found.seen.mean())
    workspace.state.facts["background_moving"] = found.moving
    if found.moving > _MOVING:
        workspace.warn(
            "plate",
            f"{100 * found.moving:.0f} % of the background beside the person moves; the empty "
            "background is the middle of what was seen there.",
        )
    write_image(workspace.path("background.png"), found.image)
