"""Finds the 478 face landmarks on any head model, by detecting them on renderings of it.

The model is drawn from many sides, as itself and as random people; the landmarks detected there are
put back onto its surface, averaged robustly and mirrored. Lids and inner lips are then moved to
where the skin ends, because a closed mouth or eye would show every error there.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from avatar3d.capture.config import CaptureConfig
from avatar3d.capture.landmarks import choose_detector, choose_face
from avatar3d.capture.parallel import silenced
from avatar3d.geometry import Camera
from avatar3d.head import ARKIT_INDEX, HeadModel
from avatar3d.head.anny.landmarks import Embedding
from avatar3d.head.embedding import on_surface, snapped
from avatar3d.head.gallery import vertex_normals
from avatar3d.head.landmarks import IRIS_LEFT, IRIS_RIGHT, LANDMARK_COUNT, LIPS_INNER
from avatar3d.head.model import PARTS
from avatar3d.kernels import rasterize_mesh
from avatar3d.progress import track

__all__ = [
    "VIEWS", "detected_embedding", "find_landmarks", "mirrored", "observe", "robust_mean", "views",
]  # fmt: skip

View = tuple[float, float, bool, float]
Detect = Callable[[np.ndarray], np.ndarray | None]

_SIZE, _FOCAL, _DISTANCE = 512, 2.2, 0.62
_SKIN = ("face", "lips", "ears", "scalp", "neck")
_BESIDE = 12  # pixels beside the silhouette from which a landmark is still put onto it


def views(random_people: int) -> tuple[View, ...]:
    """(yaw, pitch, whether a random person, jawOpen): a grid of the mean head and random people."""
    rng = np.random.default_rng(0)
    grid = [(y, p) for y in (-30, -20, -10, 0, 10, 20, 30) for p in (-16, -8, 0, 8, 16)]
    found = [(y, p, False, jaw) for y, p in grid for jaw in (0.0, 0.3)]
    for _ in range(random_people):
        yaw, pitch = grid[rng.integers(len(grid))]
        found.append((yaw, pitch, True, 0.3 if rng.random() < 0.6 else 0.0))
    return tuple((np.deg2rad(y), np.deg2rad(p), person, jaw) for y, p, person, jaw in found)


VIEWS = views(30)
"""What `find_landmarks` looks at: (yaw, pitch, whether a random person, jawOpen)."""


def detected_embedding(config: CaptureConfig) -> Callable[[HeadModel], Embedding]:
    """`find_landmarks` with the configured landmark models, which are loaded at the first use."""

    def embed(head: HeadModel) -> Embedding:
        with silenced():
            detector = choose_detector(config).make(1)

        def detect(image: np.ndarray) -> np.ndarray | None:
            face = choose_face(detector.detect(image), None)
            return None if face is None else face.points[:, :2]

        return find_landmarks(head, detect)

    return embed


def find_landmarks(head: HeadModel, detect: Detect, plan: Sequence[View] = VIEWS) -> Embedding:
    """Where the landmarks lie on a head.

    Args:
        head: any model in the head frame; what it says of landmarks is ignored, of its expressions
            only jawOpen is used.
        detect: (H, W, 3) uint8 to (478, 2) pixels, or None without a face.
        plan: views to look at.

    Raises:
        UserError: too few of the renderings were taken for a face.
    """
    mean, sigma = mirrored(*robust_mean(*observe(head, detect, plan)))
    return snapped(head, on_surface(head, mean, sigma), mean)


def observe(
    head: HeadModel,
    detect: Detect,
    plan: Sequence[View] = VIEWS,
    on_view: Callable[[int, np.ndarray, np.ndarray], Any] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks back-projected from every view: points (N, 478, 3), weights (N, 478).

    Args:
        on_view: called with the number, picture and pixels of every view with a face.
    """
    from avatar3d.errors import UserError
    from avatar3d.synth.appearance import Appearance, Palette, hair_offset
    from avatar3d.synth.renderer import draw

    camera = Camera.from_focal(_FOCAL * _SIZE, _SIZE, _SIZE)
    rng = np.random.default_rng(0)
    hair = hair_offset(head)
    points, weights = [], []
    for index, (yaw, pitch, random_person, jaw) in enumerate(track(plan, "Finding landmarks")):
        identity = rng.normal(0, 0.7, len(head.identity)) * random_person
        expression = np.zeros(len(ARKIT_INDEX), np.float32)
        expression[ARKIT_INDEX["jawOpen"]] = jaw
        rest = head.shaped(identity).posed(expression)
        rotation = _rotation(yaw, pitch)
        flip = np.array([1, -1, -1])
        in_camera = (rest @ rotation.T) * flip + [0, -0.01, _DISTANCE]
        appearance = Appearance(head, Palette.random(rng))
        plate = np.full((_SIZE, _SIZE, 3), rng.uniform(0.3, 0.8), np.float32)
        picture = draw(in_camera + (hair @ rotation.T) * flip, appearance, camera, plate)
        image = (picture.image * 255).clip(0, 255).astype(np.uint8)
        pixels = detect(image)
        if pixels is None:
            continue
        found, weight = _back_project(head, rest, in_camera, camera, pixels, rotation)
        weight *= np.exp(-((yaw / 0.30) ** 2) - (pitch / 0.22) ** 2)
        if jaw < 0.2:  # closed lips hide their inner edge
            weight[list(LIPS_INNER)] = 0
        points.append(found)
        weights.append(weight)
        if on_view is not None:
            on_view(index, image, pixels)
    if len(points) < max(3, len(plan) // 3):
        raise UserError(
            f"Only {len(points)} of {len(plan)} renderings of the head model {head.name!r} were "
            "taken for a face; check that it is in metres, upright and looks along +z."
        )
    return np.array(points), np.array(weights)


def robust_mean(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted geometric median (478, 3) and spread (478,) over the views."""
    mean, spread = np.zeros((LANDMARK_COUNT, 3)), np.zeros(LANDMARK_COUNT)
    for mark in range(LANDMARK_COUNT):
        seen = np.isfinite(points[:, mark, 0])
        if not seen.any():
            spread[mark] = np.inf
            continue
        # What is never seen well is taken from where it is seen best.
        good = seen & (weights[:, mark] >= min(0.02, 0.3 * weights[seen, mark].max()))
        sample, share = points[good, mark], np.maximum(weights[good, mark], 1e-6)
        centre = np.median(sample, axis=0)
        for _ in range(30):
            pull = share / np.maximum(np.linalg.norm(sample - centre, axis=1), 5e-4)
            centre = (sample * pull[:, None]).sum(0) / pull.sum()
        squared = ((sample - centre) ** 2).sum(1)
        mean[mark], spread[mark] = centre, np.sqrt((share * squared).sum() / share.sum())
    return mean, spread


def mirrored(mean: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average each landmark with the mirror image of its partner across x = 0."""
    from scipy.optimize import linear_sum_assignment

    image = mean * [-1, 1, 1]
    cost = ((image[:, None] - mean[None]) ** 2).sum(-1)
    cost[:468, 468:] = cost[468:, :468] = 1e3
    partner = linear_sum_assignment(cost)[1]
    paired = (partner[partner] == np.arange(len(mean))) & np.isfinite(sigma)
    paired &= paired[partner]
    mean, sigma = mean.copy(), sigma.copy()
    mean[paired] = (mean[paired] + image[partner[paired]]) / 2
    sigma[paired] = (sigma[paired] + sigma[partner[paired]]) / 2
    return mean, sigma


def _back_project(
    head: HeadModel, rest: np.ndarray, in_camera: np.ndarray, camera: Camera, pixels: np.ndarray,
    rotation: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Template points (478, 3) seen at `pixels`, and weights (478,), low at grazing angles.

    A landmark beside the silhouette counts, the less the farther, at the nearest seen surface.
    """
    from scipy.ndimage import distance_transform_edt

    screen = np.concatenate([camera.project(in_camera), in_camera[:, 2:]], 1).astype(np.float32)
    normals = (vertex_normals(rest, head.faces) @ rotation.T) * [1, -1, -1]
    towards = -in_camera / np.linalg.norm(in_camera, axis=1, keepdims=True)
    facing = (normals * towards).sum(1)
    found, weight = np.full((LANDMARK_COUNT, 3), np.nan), np.zeros(LANDMARK_COUNT)
    iris = set(IRIS_LEFT + IRIS_RIGHT)
    for names, marks in (
        (_SKIN, [k for k in range(LANDMARK_COUNT) if k not in iris]),
        (("eye_left", "eye_right"), sorted(iris)),
    ):
        chosen = np.isin(head.part, [PARTS.index(name) for name in names])
        faces = np.ascontiguousarray(head.faces[chosen[head.faces].all(1)])
        if not len(faces):
            continue
        seen, bary, _ = rasterize_mesh(screen, faces, camera.width, camera.height)
        away, nearest = distance_transform_edt(seen < 0, return_indices=True)
        for mark in marks:
            column, row = np.floor(pixels[mark]).astype(int)
            inside = 0 <= column < camera.width and 0 <= row < camera.height
            if not inside or away[row, column] > _BESIDE:
                continue
            at = tuple(nearest[:, row, column])
            corners = faces[seen[at]]
            found[mark] = bary[at] @ head.template[corners]
            weight[mark] = max(bary[at] @ facing[corners], 0) * np.exp(-away[row, column] / 4)
    return found, weight


def _rotation(yaw: float, pitch: float) -> np.ndarray:
    import torch

    from avatar3d.geometry import yaw_pitch_roll

    angles = [torch.tensor(float(angle)) for angle in (yaw, pitch, 0.0)]
    return yaw_pitch_roll(*angles).numpy()
