"""LSE-C and LSE-D: how well lips and sound fit for SyncNet (Chung and Zisserman 2016).

The weights are the user's: those of github.com/joonson/syncnet_python (`syncnet_v2.model`), saved
as safetensors under their own names. The network scores what it was trained on, and what was
trained against it, better than real video, so the figures are always given beside the true clip's.
Faces are placed by our landmarks instead of S3FD; the rest is as in that program.
"""

from pathlib import Path

import numpy as np
import torch
from scipy.fft import dct
from scipy.signal import medfilt
from torch import Tensor, nn

from avatar3d.errors import UserError

__all__ = ["SyncNet", "face_crops", "load_syncnet", "mfcc", "sync_scores"]

FPS, RATE = 25, 16_000
_SIDE, _SPAN, _STEPS = 224, 5, 4  # pixels; frames; steps of the sound in a frame
_REACH = 15  # frames that the sound is moved by
_CROP = 0.4
_BATCH = 10
_SMOOTH = 13
_GREY = 110


class SyncNet(nn.Module):
    """Lips (N, 3, 5, 224, 224), BGR of 0 to 255, and sound (N, 1, 13, 20) as (N, 1024) each."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_layer2(1, 64), nn.MaxPool2d(1, 1), *_layer2(64, 192), nn.MaxPool2d(3, (1, 2)),
            *_layer2(192, 384), *_layer2(384, 256), *_layer2(256, 256), nn.MaxPool2d(3, 2),
            *_layer2(256, 512, (5, 4), 0),
        )  # fmt: skip
        self.netcnnlip = nn.Sequential(
            *_layer3(3, 96, (5, 7, 7), (1, 2, 2), 0), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_layer3(96, 256, (1, 5, 5), (1, 2, 2)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_layer3(256, 256), *_layer3(256, 256), *_layer3(256, 256),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)), *_layer3(256, 512, (1, 6, 6), padding=0),
        )  # fmt: skip
        self.netfcaud, self.netfclip = (
            nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))
            for _ in range(2)
        )

    def lips(self, frames: Tensor) -> Tensor:
        return torch.as_tensor(self.netfclip(self.netcnnlip(frames).flatten(1)))

    def sound(self, coefficients: Tensor) -> Tensor:
        return torch.as_tensor(self.netfcaud(self.netcnnaud(coefficients).flatten(1)))


def load_syncnet(path: str | Path) -> SyncNet:
    """Raises UserError where the file is not safetensors with the weights of that network."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    network = SyncNet().eval().requires_grad_(False)
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} does not hold SyncNet's weights as safetensors ({reason[:120]}); save the "
            "state of syncnet_v2.model with safetensors.torch.save_file."
        ) from error
    return network


@torch.inference_mode()
def sync_scores(network: SyncNet, crops: np.ndarray, samples: np.ndarray) -> dict[str, float]:
    """LSE-C, LSE-D and the offset of a sequence.

    Args:
        crops: (T, 224, 224, 3) uint8 RGB at 25 frames a second, see `face_crops`.
        samples: (N,) sound of the same moments at 16 kHz, in [-1, 1].

    Returns:
        `lse_c`: median less least of the mean distances over the offsets; `lse_d`: the least;
        `sync_offset`: seconds that the sound comes late by. Empty for less than half a second.
    """
    count = min(len(crops), len(samples) * FPS // RATE) - _SPAN
    if count < FPS // 2:
        return {}
    heard = torch.from_numpy(mfcc(samples * 32768.0).T.astype(np.float32))
    seen = torch.from_numpy(np.ascontiguousarray(crops[..., ::-1])).permute(3, 0, 1, 2)
    lips, sounds = [], []
    for start in range(0, count, _BATCH):
        some = range(start, min(start + _BATCH, count))
        pictures = torch.stack([seen[:, i : i + _SPAN].float() for i in some])
        lips.append(network.lips(pictures))
        pieces = [heard[None, :, _STEPS * i : _STEPS * (i + _SPAN)] for i in some]
        sounds.append(network.sound(torch.stack(pieces)))
    a, b = torch.cat(lips), torch.cat(sounds)
    padded = nn.functional.pad(b, (0, 0, _REACH, _REACH))
    apart = torch.stack([
        nn.functional.pairwise_distance(a, padded[shift : shift + count])
        for shift in range(2 * _REACH + 1)
    ]).mean(1)  # fmt: skip
    best = int(apart.argmin())
    least, middle = float(apart[best]), float(apart.median())
    offset = (best - _REACH) / FPS
    return {"lse_c": middle - least, "lse_d": least, "sync_offset": offset}


def face_crops(images: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(T, 224, 224, 3) uint8 of pictures (T, H, W, 3), around boxes (T, 4) left top right bottom.

    As SyncNet's pipeline cuts them: medians over 13 frames, 40 % more at the sides and below, grey
    outside the picture.
    """
    import cv2

    left, top, right, bottom = np.asarray(boxes, np.float64).T
    size = medfilt(np.maximum(bottom - top, right - left) / 2, _SMOOTH)
    x, y = (medfilt((low + high) / 2, _SMOOTH) for low, high in ((left, right), (top, bottom)))
    size, x, y = (_ends_held(values) for values in (size, x, y))
    cut = []
    for image, half, across, down in zip(images, size, x, y, strict=True):
        pad = int(half * (1 + 2 * _CROP))
        wide = cv2.copyMakeBorder(
            image, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=(_GREY,) * 3
        )
        across, down, aside = across + pad, down + pad, half * (1 + _CROP)
        part = wide[
            max(int(down - half), 0) : int(down + half * (1 + 2 * _CROP)),
            max(int(across - aside), 0) : int(across + aside),
        ]
        cut.append(cv2.resize(part, (_SIDE, _SIDE)))
    return np.stack(cut)


def mfcc(samples: np.ndarray) -> np.ndarray:
    """(T, 13) cepstral coefficients of sound (N,) at 16 kHz, the first of them the log energy.

    As python_speech_features computes them: steps of 10 ms, windows of 25 ms, 26 triangles in mel,
    liftered by 22.
    """
    window, step, size, bands = 400, 160, 512, 26
    sound = np.append(samples[0], samples[1:] - 0.97 * samples[:-1])
    count = 1 + max(0, -(-(len(sound) - window) // step))
    sound = np.pad(sound, (0, max(0, (count - 1) * step + window - len(sound))))
    frames = np.lib.stride_tricks.sliding_window_view(sound, window)[::step][:count]
    power = np.abs(np.fft.rfft(frames, size)) ** 2 / size
    mel = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), bands + 2)
    edges = np.floor((size + 1) * 700 * (10 ** (mel / 2595) - 1) / RATE)
    bins = np.arange(size // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = np.where(bins < edges[1:-1], rising, falling).clip(0)
    least = np.finfo(float).eps
    heard = np.maximum(power @ filters, least)
    found = dct(np.log(heard), norm="ortho")[:, :13]
    found *= 1 + 11 * np.sin(np.pi * np.arange(13) / 22)
    found[:, 0] = np.log(np.maximum(power.sum(1), least))
    return np.asarray(found)


def _ends_held(values: np.ndarray) -> np.ndarray:
    """medfilt takes zeros beyond the ends, which would shrink the first and last crops."""
    half = _SMOOTH // 2
    if len(values) > 2 * half:
        values[:half], values[-half:] = values[half], values[-half - 1]
    return values


def _layer2(
    taken: int, given: int, kernel: tuple[int, int] = (3, 3), padding: int = 1
) -> tuple[nn.Module, ...]:
    return nn.Conv2d(taken, given, kernel, padding=padding), nn.BatchNorm2d(given), nn.ReLU()


def _layer3(
    taken: int, given: int, kernel: tuple[int, int, int] = (1, 3, 3),
    stride: tuple[int, int, int] = (1, 1, 1), padding: int = 1,
) -> tuple[nn.Module, ...]:  # fmt: skip
    convolution = nn.Conv3d(taken, given, kernel, stride, (0, padding, padding))
    return convolution, nn.BatchNorm3d(given), nn.ReLU()
