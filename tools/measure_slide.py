"""Measure how detected landmarks slide over the skin, on renderings of the default head model.

    python tools/measure_slide.py face_landmarker.task [--people 1600]

Draws random people in random poses, expressions, skins and light, detects their landmarks as
capture does, with both of mediapipe's landmark models, and explains what is left against the true
places by the turn of the head and by the expression (robust least squares, in the head frame, both
sides alike). What goes with the turn, which is our own measurement, is written to
avatar3d/capture/landmark_slide.npz. Only needed again when the landmarks of the head model or the
renderer change. About 15 minutes on two cores.
"""

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from avatar3d.capture import CaptureConfig
from avatar3d.capture.landmarks import LandmarkDetector, choose_detector
from avatar3d.capture.mirroring import MIRROR, SWAPPED, detect_both_ways
from avatar3d.capture.slide import DATA, TURNS, turn_terms
from avatar3d.geometry import Camera, yaw_pitch_roll
from avatar3d.head import ARKIT_INDEX, HeadModel, load_head
from avatar3d.head.landmarks import BROWS, EYE_LEFT, EYE_RIGHT, IRIS_LEFT, IRIS_RIGHT, LIPS
from avatar3d.io.atomic import atomic_write
from avatar3d.progress import track
from avatar3d.synth.appearance import Appearance, Palette, hair_offset
from avatar3d.synth.renderer import LIGHT, draw

OUTPUT = Path(__file__).resolve().parent.parent / "avatar3d/capture" / DATA
FIRST_SEED = 10_000  # far from those of the synthetic clips that captures are judged by
SIZE = 416
DRAWN = (*EYE_LEFT, *EYE_RIGHT, *LIPS, *BROWS)
"""Landmarks at edges that a picture shows, which the embedding already sits on."""
IRISES = (*IRIS_LEFT, *IRIS_RIGHT)  # the fit turns them
Sample = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Rotation (3, 3); expression (52,); slopes (478, 2, 3) of pixels by metres; displacements (478, 2)
in pixels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="face_landmarker.task")
    parser.add_argument("--people", type=int, default=1600)
    options = parser.parse_args()
    configs = {
        "solutions": CaptureConfig(detector="solutions"),
        "tasks": CaptureConfig(detector="tasks", face_landmarker=options.model),
    }
    detectors = {name: choose_detector(config).make(1) for name, config in configs.items()}
    seen: dict[str, list[Sample]] = {name: [] for name in detectors}
    for number in track(range(options.people), "Drawing people", options.people):
        for name, sample in look(load_head(), number, detectors):
            seen[name].append(sample)
    arrays: dict[str, np.ndarray] = {}
    for name, samples in seen.items():
        rest, turn = explained(samples)
        rest[[*DRAWN, *IRISES]], turn[:, IRISES] = 0, 0
        arrays |= {f"{name}_rest": rest.astype(np.float16), f"{name}_turn": turn.astype(np.float16)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    atomic_write(OUTPUT, buffer.getvalue())
    print(f"{OUTPUT}: {OUTPUT.stat().st_size} bytes")


def look(
    head: HeadModel, number: int, detectors: dict[str, LandmarkDetector]
) -> Iterator[tuple[str, Sample]]:
    """One random person in a random pose, through every detector that finds the face."""
    rng = np.random.default_rng(FIRST_SEED + number)
    shaped = head.shaped(rng.normal(0, rng.uniform(0.3, 0.8), len(head.identity)))
    gaze = rng.uniform([-0.35, -0.25], [0.35, 0.25]) * np.ones((2, 1))
    expression = random_expression(rng, gaze[0, 1])
    posed = shaped.posed(expression, gaze)
    angles = (rng.uniform(-0.6, 0.6), rng.uniform(-0.35, 0.35), rng.normal(0, 0.1))
    rotation = np.diag([1, -1, -1]) @ yaw_pitch_roll(*map(torch.tensor, angles)).numpy()
    depth = rng.uniform(0.6, 1.2)
    camera = Camera.from_focal(depth * rng.uniform(1100, 1700), SIZE, SIZE)
    place = np.array([0, 0, depth])
    light = LIGHT + rng.normal(0, 0.5, 3) * [1, 1, 0.2]
    picture = draw(
        (posed + hair_offset(head)) @ rotation.T + place, Appearance(head, Palette.random(rng)),
        camera, np.full((SIZE, SIZE, 3), rng.uniform(0.3, 0.8)), light / np.linalg.norm(light),
    )  # fmt: skip
    image = (picture.image * 255).clip(0, 255).astype(np.uint8)
    points = head.landmarks_of(posed) @ rotation.T + place
    pixels, focal = camera.project(points), camera.K[0, 0]
    slope = np.zeros((len(points), 2, 3))
    slope[:, 0, 0] = slope[:, 1, 1] = focal / points[:, 2]
    slope[:, :, 2] = -focal * points[:, :2] / points[:, 2:] ** 2
    for name, detector in detectors.items():
        face = detect_both_ways(detector, image, None)
        if face is not None:
            yield name, (rotation, expression, slope @ rotation, face.points[:, :2] - pixels)


def random_expression(rng: np.random.Generator, gaze_pitch: float) -> np.ndarray:
    """(52,) weights: a few, often an open jaw or a blink, and lids that go with the eyes."""
    weights = np.zeros(len(ARKIT_INDEX), np.float32)
    for name in rng.choice(list(ARKIT_INDEX), rng.integers(0, 7), replace=False):
        if name != "tongueOut" and not name.startswith("eyeLook"):
            weights[ARKIT_INDEX[name]] = rng.uniform(0.1, 0.8)
    if rng.random() < 0.6:
        weights[ARKIT_INDEX["jawOpen"]] = rng.uniform(0, 0.6)
    blink = rng.uniform(0.2, 1) * (rng.random() < 0.3)
    for side in ("Left", "Right"):
        weights[ARKIT_INDEX[f"eyeBlink{side}"]] = blink
        weights[ARKIT_INDEX[f"eyeLookDown{side}"]] = np.clip(-gaze_pitch / 0.5, 0, 1)
        weights[ARKIT_INDEX[f"eyeLookUp{side}"]] = np.clip(gaze_pitch / 0.5, 0, 1)
    return weights


def explained(samples: list[Sample], rounds: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """`Slide.rest` and `Slide.turn` that explain the displacements best.

    Every sample counts as its mirror image too, so the result is symmetric.
    """
    rotation, expression, slope, away = (np.stack(arrays) for arrays in zip(*samples, strict=True))
    mirror, flip = list(MIRROR), np.array([-1.0, 1, 1])
    rotation = np.concatenate([rotation, rotation * flip * flip[:, None]])
    expression = np.concatenate([expression, expression[:, SWAPPED]])
    slope = np.concatenate([slope, slope[:, mirror] * flip[:2, None] * flip])
    away = np.concatenate([away, away[:, mirror] * flip[:2]])
    turns = turn_terms(torch.as_tensor(rotation)).numpy()
    terms = np.column_stack([np.ones(len(turns)), turns, expression])
    scale = slope[:, :, 0].max((1, 2))[:, None]  # pixels a metre
    result = np.zeros((terms.shape[1], 478, 3))
    for mark in track(range(478), "Explaining", 478):
        columns = terms[:, None, :, None] * (slope[:, mark] / scale[..., None])[:, :, None]
        columns = columns.reshape(2 * len(terms), -1)
        wanted, weight = (away[:, mark] / scale).ravel(), np.ones(2 * len(terms))
        for _ in range(rounds):
            weighted = (columns * weight[:, None]).T
            # As much as 1 of the thousands of samples: depth is hardly seen from the front.
            normal = weighted @ columns + np.eye(columns.shape[1])
            found = np.linalg.solve(normal, weighted @ wanted)
            left = (wanted - columns @ found).reshape(-1, 2)
            # Robust from a millimetre on.
            weight = np.repeat(1 / np.sqrt((left**2).sum(1) * 1e6 + 1), 2)
        result[:, mark] = found.reshape(-1, 3)
    return result[0], result[1 : 1 + TURNS]


if __name__ == "__main__":
    main()
