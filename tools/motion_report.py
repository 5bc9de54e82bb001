"""Measure motions: retargeting on people who are known exactly, blinks on people who are not.

    python tools/motion_report.py [SUBJECT...] [--synthetic 0 1 2] [--seconds 6] [--rows] [--json F]

--synthetic makes a person for every seed, captures the video as any other and compares the
performance found with the true weights, as root mean squares over all 52:

    zero        of a face that does nothing, the trivial answer
    tracked     as captured
    plain       retargeted to plain ARKit weights (`avatar3d motion retarget CLIP -o F`)
    onto        retargeted to the next person, against what capture finds when that person does
                exactly the same; copied, the same without retargeting

--rows adds the rows with the largest errors. For every SUBJECT, blinks a minute and their seconds
at half height, in the clip and in a minute of new motion in its manner (range over five seeds).
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.capture.performance import Performance, track_performance
from avatar3d.head import ARKIT_52
from avatar3d.motion import Motion, in_manner, retarget
from avatar3d.motion.blinks import find_blinks, lid_closure
from avatar3d.subject import Subject
from avatar3d.synth import SyntheticClip, make_synthetic, write_video

SIZE, FPS, SEEDS = 512, 25, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("subjects", nargs="*", type=Path)
    parser.add_argument("--synthetic", nargs="*", type=int, default=[], metavar="SEED")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rows", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    people = [make_synthetic(seed, options.seconds, FPS, SIZE) for seed in options.synthetic]
    tracked = [tracking_of(person) for person in people]
    for index, (seed, person) in enumerate(zip(options.synthetic, people, strict=True)):
        other = (index + 1) % len(people)
        same = replace(people[other], performance=person.performance, _drawn={})
        onto = None if other == index else (tracked[other], tracking_of(same))
        name = f"synthetic {seed}"
        results[name] = retargeting(person, tracked[index], onto, options.rows)
        print(name.ljust(28), line(results[name]), flush=True)
    for path in options.subjects:
        results[path.name] = blinks(Subject(path))
        print(path.name.ljust(28), line(results[path.name]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def tracking_of(person: SyntheticClip) -> Performance:
    with tempfile.TemporaryDirectory(prefix="avatar3d-report-") as folder:
        video = Path(folder) / "person.mp4"
        write_video(person, video)
        return track_performance(video)


def retargeting(
    person: SyntheticClip,
    found: Performance,
    onto: tuple[Performance, Performance] | None,
    rows: bool,
) -> dict[str, Any]:
    truth = person.expression
    plain = weights(retarget(found.motion, effects=found.effects))
    figures: dict[str, Any] = {
        "zero": rms(truth), "tracked": rms(weights(found.motion) - truth),
        "plain": rms(plain - truth),
    }  # fmt: skip
    if onto is not None:
        target, same = (weights_of.motion for weights_of in onto)
        figures["onto"] = rms(weights(retarget(found.motion, target)) - weights(same))
        figures["copied"] = rms(weights(found.motion) - weights(same))
    if rows:
        error = np.sqrt(((plain - truth) ** 2).mean(0))
        worst = np.argsort(-error)[:8]
        figures["rows"] = {ARKIT_52[row]: round(float(error[row]), 3) for row in worst}
    return figures


def blinks(subject: Subject) -> dict[str, Any]:
    clip = subject.tracking.motion(subject.fps)
    made = np.array([rate_and_width(in_manner(clip, 60, FPS, seed)) for seed in range(SEEDS)])
    rate, width = rate_and_width(clip)
    return {
        "rate": rate, "rate made": [made[:, 0].min(), made[:, 0].max()],
        "width": width, "width made": [made[:, 1].min(), made[:, 1].max()],
    }  # fmt: skip


def rate_and_width(motion: Motion) -> tuple[float, float]:
    """Blinks a minute, and their mean seconds at half height."""
    found = find_blinks(lid_closure(motion), motion.fps)
    width = float(np.mean([blink.width for blink in found])) / motion.fps if found else 0.0
    return 60 * len(found) / motion.duration, width


def weights(motion: Motion) -> np.ndarray:
    assert motion.expression is not None
    return motion.expression


def rms(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(error))))


def line(figures: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{key} {number}" for key, number in value.items())
        if isinstance(value, list):
            return " to ".join(f"{number:.3g}" for number in value)
        return f"{value:.3g}"

    return "  ".join(f"{name} {text(value)}" for name, value in figures.items())


if __name__ == "__main__":
    main()
