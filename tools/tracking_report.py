"""Measure capture: on real clips against their landmarks, on synthetic people against the truth.

    python tools/tracking_report.py CLIP_OR_FOLDER... [--synthetic 0 1] [--set refine=false ...]

Captures every clip in a process of its own and prints one line of figures each; --json keeps them.
Synthetic people are captured with the true focal length. Residuals are medians in pixels at 512,
errors against the truth are medians over the frames.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from reporting import run_avatar3d

from avatar3d.capture.dense import FaceView, rerendering_psnr
from avatar3d.capture.fit import FaceFit
from avatar3d.capture.pose import mean_pose
from avatar3d.capture.workspace import CACHE, spread
from avatar3d.evaluation.tracking import landmark_figures, picture_figures, truth_figures
from avatar3d.head import load_head
from avatar3d.subject import Subject
from avatar3d.synth import make_synthetic, write_video

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi")
COLUMNS = {
    "lips_px": "lips", "eyes_px": "eyes", "iris_px": "iris", "all_px": "all", "oval_px": "oval",
    "aperture_gain": "lids", "aperture_amplitude": "ampl", "lip_gap_gain": "gap",
    "still_jitter_degrees": "jitter", "refined_gain_db": "dense dB", "rotation_degrees": "rot",
    "rotation_of_face_degrees": "face", "rotation_varying_degrees": "varying",
    "lips_mm": "lips mm", "lids_mm": "lids mm", "gaze_degrees": "gaze", "lag_lips_frames": "lag",
    "matte_iou": "matte", "parsing_mean_iou": "parsing", "ms_per_frame": "ms/frame",
    "peak_gb": "GB",
}  # fmt: skip
SEED_SECONDS, SIZE, FPS = 6.0, 512, 25.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--synthetic", nargs="*", type=int, default=[], metavar="SEED")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--work", type=Path, help="keep the subjects here")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    folder = options.work or Path(tempfile.mkdtemp(prefix="avatar3d-report-"))
    folder.mkdir(parents=True, exist_ok=True)
    print("clip".ljust(24) + "".join(name.rjust(9) for name in COLUMNS.values()))
    results: dict[str, dict[str, Any]] = {}
    for clip in videos(options.clips):
        results[clip.stem] = shown(clip.stem, real(clip, folder, options.overrides))
    for seed in options.synthetic:
        name = f"synthetic {seed}"
        results[name] = shown(name, synthetic(seed, folder, options.overrides))
    for row, middle in (("median", np.median), ("worst", np.max)):
        shared = {
            key: float(middle([r[key] for r in results.values() if key in r]))
            for key in COLUMNS
            if any(key in r for r in results.values())
        }
        shown(row, shared)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def videos(paths: list[Path]) -> list[Path]:
    found = []
    for path in paths:
        inside = (
            sorted(p for p in path.iterdir() if p.suffix in VIDEOS) if path.is_dir() else [path]
        )
        found.extend(inside)
    return found


def real(clip: Path, folder: Path, overrides: list[str]) -> dict[str, Any]:
    cost = run_capture(clip, folder / f"{clip.stem}.subject", overrides)
    subject = Subject(folder / f"{clip.stem}.subject")
    return landmark_figures(subject.tracking, subject.fps) | dense_gain(subject) | cost


def synthetic(seed: int, folder: Path, overrides: list[str]) -> dict[str, Any]:
    clip = make_synthetic(seed, SEED_SECONDS, FPS, SIZE)
    video, output = folder / f"synthetic{seed}.mp4", folder / f"synthetic{seed}.subject"
    if not video.is_file():
        write_video(clip, video)
    focal = clip.camera.K[0, 0] / SIZE
    cost = run_capture(video, output, [f"focal={focal}", "crop=none", *overrides])
    subject = Subject(output)
    figures = landmark_figures(subject.tracking, subject.fps) | dense_gain(subject) | cost
    figures |= truth_figures(subject.tracking, load_head(), clip)
    return figures | picture_figures(subject, clip, np.arange(0, len(clip), 10))


def run_capture(video: Path, output: Path, overrides: list[str]) -> dict[str, Any]:
    """Milliseconds a frame, start-up and all, and the peak memory of one `avatar3d capture`."""
    log = output.with_suffix(".log")
    cost = run_avatar3d(["capture", str(video), "-o", str(output), *overrides], log)
    frames = len(Subject(output))
    return {
        "frames": frames,
        "ms_per_frame": cost["seconds"] / frames * 1e3,
        "cpu_ms_per_frame": cost["cpu_seconds"] / frames * 1e3,
        "peak_gb": cost["peak_gb"],
        "stage_ms": {
            k: round(v / frames * 1e3, 1) for k, v in Subject(output).info.timings.items()
        },
    }


def dense_gain(subject: Subject) -> dict[str, float]:
    """Held-out re-rendering from a mean texture in colour, after refinement and what it gained."""
    tracking, K = subject.tracking, subject.tracking.K
    with np.load(subject.folder / CACHE / "fit.npz", allow_pickle=False) as data:
        arrays = {name: data[name] for name in ("poses", "weights", "gaze", "points")}
    before = FaceFit(**arrays)
    after = FaceFit(tracking.T_camera_head, tracking.weights, tracking.gaze, tracking.landmarks_fit)
    usable = np.flatnonzero(tracking.valid)
    chosen = usable[spread(len(usable), 150)]
    held_out = chosen[3::7]
    known = np.setdiff1d(chosen, held_out)
    shaped = load_head(tracking.head_model).shaped(tracking.identity, tracking.landmark_offsets)
    view = FaceView(shaped, mean_pose(before.poses[usable]))
    first, second = (
        rerendering_psnr(view, fit, K, subject.frame, known, held_out) for fit in (before, after)
    )
    return {"rerendering_db": second, "refined_gain_db": second - first}


def shown(name: str, figures: dict[str, Any]) -> dict[str, Any]:
    cells = (f"{figures[key]:9.3f}" if key in figures else " " * 9 for key in COLUMNS)
    print(name[:24].ljust(24) + "".join(cells), flush=True)
    return figures


if __name__ == "__main__":
    main()
