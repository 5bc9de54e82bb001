"""Teach the mouth of the web viewer: `avatar3d/viewer/web/speech.npz` from synthetic speech alone.

    python tools/train_viewer_speech.py [--readings 600] [--judged 60] [--seed 0]

The readings are those of `train_speech_prior.py`. The network hears only log-mel bands, so that a
browser can run it while somebody speaks. Takes about three minutes on one core.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, dropout
from train_speech_prior import (
    SENTENCES,
    UNFIT_VOICES,
    UNHEARD_LANGUAGES,
    UNHEARD_VOICES,
    Reading,
    readings,
)

from avatar3d.audio import tts
from avatar3d.export.speech import BANDS, OFFSETS, WEIGHTS_FILE, pooled
from avatar3d.io.arrays import write_arrays
from avatar3d.motion.articulation import CURVES
from avatar3d.motion.windows import normalised, taps
from avatar3d.progress import track

UNITS, DROPOUT, NOISE, STEPS, BATCH, RATE = 64, 0.1, 0.15, 6000, 1024, 2e-3
LOW, HIGH = 0.2, 0.95  # quantiles of prediction and truth that are brought together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readings", type=int, default=600)
    parser.add_argument("--judged", type=int, default=60, metavar="READINGS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=WEIGHTS_FILE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    voices = [name for name in tts.voices() if not UNFIT_VOICES.search(name)]
    taught = [name for name in sorted(SENTENCES) if name not in UNHEARD_LANGUAGES]
    familiar = [name for name in voices if name not in UNHEARD_VOICES]
    unheard = readings(rng, options.judged, list(UNHEARD_LANGUAGES), list(UNHEARD_VOICES))
    known = readings(rng, options.readings, taught, familiar)
    spoken = np.concatenate([pooled(r.rows["mel"])[r.active] for r in known])
    mean, std = spoken.mean(axis=0), spoken.std(axis=0)
    inputs = np.concatenate([heard(r, mean, std) for r in known])
    wanted = np.concatenate([r.curves for r in known])
    active = np.concatenate([r.active for r in known])
    network = nn.Sequential(
        nn.Linear(inputs.shape[1], UNITS), nn.ReLU(),
        nn.Linear(UNITS, UNITS), nn.ReLU(), nn.Linear(UNITS, len(CURVES)),
    )  # fmt: skip
    teach(network, inputs, wanted, active, rng)
    with torch.no_grad():
        likely = torch.sigmoid(network(torch.from_numpy(inputs))).numpy()[active]
    true = wanted[active]
    trust = [np.corrcoef(p, t)[0, 1] for p, t in zip(likely.T, true.T, strict=True)]
    found = np.quantile(likely, (LOW, HIGH), axis=0)
    aim = trust * np.quantile(true, (LOW, HIGH), axis=0) + (1 - np.array(trust)) * found
    gain = np.clip((aim[1] - aim[0]) / (found[1] - found[0]), 1, 2)
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    arrays = {"mean": mean, "std": std, "gain": gain, "bias": aim[1] - gain * found[1]}
    for index, layer in enumerate(layers):
        arrays[f"weight{index}"] = layer.weight.detach().numpy().astype(np.float16)
        arrays[f"bias{index}"] = layer.bias.detach().numpy()
    arrays = {n: a if a.dtype == np.float16 else a.astype(np.float32) for n, a in arrays.items()}
    write_arrays(options.output, arrays)
    print(f"Wrote {options.output}, {options.output.stat().st_size / 1024:.0f} KiB")
    judge(network, mean, std, unheard)


def heard(reading: Reading, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """(T, 7 * BANDS) what the network hears of every frame."""
    clean = normalised(pooled(reading.rows["mel"]), reading.active, mean, std, reading.fps)
    return taps(clean.clip(-5, 5), reading.fps, OFFSETS).astype(np.float32)


def teach(
    network: nn.Module,
    inputs: np.ndarray,
    wanted: np.ndarray,
    active: np.ndarray,
    rng: np.random.Generator,
) -> None:
    x, y, weight = (torch.from_numpy(a.astype(np.float32)) for a in (inputs, wanted, active))
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS + 1, pct_start=0.1)
    for _ in track(range(STEPS), "Teaching", STEPS):
        chosen = torch.from_numpy(rng.integers(0, len(x), BATCH))
        noise = torch.randn(BATCH, len(OFFSETS), BANDS) + torch.randn(BATCH, 1, BANDS)
        logits = network(dropout(x[chosen] + NOISE * noise.flatten(1), DROPOUT))
        loss = binary_cross_entropy_with_logits(logits, y[chosen], reduction="none").mean(1)
        loss = (loss * (0.7 * weight[chosen] + 0.3)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def judge(network: nn.Module, mean: np.ndarray, std: np.ndarray, unheard: list[Reading]) -> None:
    """Print correlations with the true curves for languages and voices that were not taught."""
    with torch.no_grad():
        said = np.concatenate(
            [
                torch.sigmoid(network(torch.from_numpy(heard(r, mean, std))))[r.active]
                for r in unheard
            ]
        )
    true = np.concatenate([r.curves[r.active] for r in unheard])
    for name, found, wanted in zip(CURVES, said.T, true.T, strict=True):
        if wanted.any():
            print(f"{name:10} correlation {np.corrcoef(found, wanted)[0, 1]:.3f}")


if __name__ == "__main__":
    main()
