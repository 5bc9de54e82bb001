"""Measure avatars: train on subjects, score on the frames and cameras that training did not see.

    python tools/avatar_report.py SUBJECT... [--synthetic 0] [--set iterations=800 ...]
        [--seconds 30 120 | --ablate] [--work FOLDER] [--json FILE]

Trains every subject on its first 10/11, in a process of its own, and prints one line of figures;
--seconds repeats that with time limits, --ablate with each ingredient of the training off in turn.
A synthetic person is trained from the exact truth and also scored from cameras beside the filmed
one. --work keeps avatars and contact sheets. Decibels unless said otherwise:

    whole, face, mouth   PSNR of the frame and of boxes; ssim of the frame
    sharp                gradient energy of the face over the recording's
    seam                 error in 12 pixels along head and neck over the inner face's
    jitter               energy of the landmarks' shaking over the recording's
    gap                  by which frames of the training are better than the others, whole frame
    cam20, cam40         the head from cameras 20 and 40 degrees to both sides (synthetic only)
    s, GB, MB            time and memory of training, size of the file
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from reporting import run_avatar3d

from avatar3d.avatar import load
from avatar3d.evaluation import evaluate
from avatar3d.evaluation.cameras import held_out_cameras
from avatar3d.evaluation.landmarks import face_detector
from avatar3d.evaluation.split import TRAIN_FRACTION
from avatar3d.io.images import write_image
from avatar3d.subject import Subject, Tracking
from avatar3d.synth import SyntheticClip, make_synthetic, write_subject
from avatar3d.training.train import run_folder

COLUMNS = {
    "psnr": "whole", "ssim": "ssim", "face_psnr": "face", "mouth_psnr": "mouth",
    "face_sharpness": "sharp", "seam_ratio": "seam", "jitter": "jitter", "gap": "gap",
    "cameras_20": "cam20", "cameras_40": "cam40", "seconds": "s", "peak_gb": "GB",
    "megabytes": "MB",
}  # fmt: skip
INGREDIENTS = {
    "photometric tracking": ["refine_steps=0"],
    "blendshapes": ["basis=0"],
    "densification": ["densify=0"],
    "coarse to fine": ["coarse_iterations=0"],
    "SSIM": ["ssim_weight=0"],
    "detail": ["detail_weight=0"],
    "mouth and eye weights": ["mouth_weight=1", "eye_weight=1"],
    "random background": ["random_background=0"],
    "colour limits": ["limit_colors=false"],
    "prior of colour": ["prior_color=0"],
    "prior of place": ["prior_position=0"],
    "prior of size": ["prior_scale=0"],
    "prior of opacity": ["prior_opacity=0"],
}
SEED_SECONDS, SIZE, FPS = 8.0, 512, 25.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("subjects", nargs="*", type=Path)
    parser.add_argument("--synthetic", nargs="*", type=int, default=[], metavar="SEED")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--seconds", nargs="*", type=float, default=[])
    parser.add_argument("--ablate", action="store_true")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folder = options.work or Path(tempfile.mkdtemp(prefix="avatar3d-report-"))
    folder.mkdir(parents=True, exist_ok=True)
    people: list[tuple[str, Path, SyntheticClip | None]] = [
        (path.name.removesuffix(".subject"), path, None) for path in options.subjects
    ]
    people += [synthetic(seed, folder) for seed in options.synthetic]
    print("".ljust(44) + "".join(title.rjust(8) for title in COLUMNS.values()))
    results: dict[str, dict[str, Any]] = {}
    for name, path, truth in people:
        for variant, overrides in variants(options.seconds, options.ablate).items():
            label = f"{name}{variant}"
            figures = measured(path, folder / file_name(label), truth, options.overrides, overrides)
            results[label] = figures
            cells = (
                f"{figures[k]:8.3f}" if figures.get(k) is not None else " " * 8 for k in COLUMNS
            )
            print(label[:44].ljust(44) + "".join(cells), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def variants(seconds: list[float], ablate: bool) -> dict[str, list[str]]:
    """Overrides by what they are called in the table."""
    if seconds:
        return {f", {limit:g} s": [f"seconds={limit}"] for limit in seconds}
    without = {f" without {name}": overrides for name, overrides in INGREDIENTS.items()}
    return {"": [], **without} if ablate else {"": []}


def synthetic(seed: int, folder: Path) -> tuple[str, Path, SyntheticClip]:
    clip = make_synthetic(seed, SEED_SECONDS, FPS, SIZE)
    path = folder / f"synthetic{seed}.subject"
    if not (path / "subject.json").is_file():
        write_subject(clip, path)
    return f"synthetic {seed}", path, clip


def file_name(label: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in label) + ".a3d"


def measured(
    path: Path, output: Path, truth: SyntheticClip | None, *overrides: list[str]
) -> dict[str, Any]:
    cost = run_training(path, output, [item for some in overrides for item in some])
    avatar, subject = load(output), Subject(path)
    tracking = Tracking.load(run_folder(output) / "tracking.npz")
    sheets = output.with_suffix(".evaluation")
    figures = evaluate(avatar, subject, sheets, tracking, face_detector())["means"]
    if truth is not None:
        scores, pictures = held_out_cameras(avatar, truth)
        for turn in (20, 40):
            both = [value for angle, value in scores.items() if abs(angle) == turn]
            figures[f"cameras_{turn}"] = float(np.mean(both))
        columns = [np.concatenate(pair) for pair in pictures]
        write_image(sheets / "cameras.png", np.concatenate(columns, 1))
    return figures | cost | {"megabytes": output.stat().st_size / 1e6}


def run_training(subject: Path, output: Path, overrides: list[str]) -> dict[str, float]:
    """What one `avatar3d train` costs, start-up and all."""
    arguments = ["train", str(subject), "-o", str(output), *overrides]
    return run_avatar3d(
        [*arguments, f"train_fraction={TRAIN_FRACTION:.6f}"], output.with_suffix(".log")
    )


if __name__ == "__main__":
    main()
