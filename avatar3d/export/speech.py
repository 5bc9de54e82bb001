"""The small speech network of the web viewer, which hears only log-mel bands.

`tools/train_viewer_speech.py` taught it by synthetic speech; `viewer/web/speech.js` runs it.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from avatar3d.audio.mel import mel_filters
from avatar3d.errors import UserError
from avatar3d.io.arrays import read_arrays

__all__ = ["BANDS", "OFFSETS", "WEIGHTS_FILE", "pooled", "speech_arrays"]

BANDS = 20
OFFSETS = (-0.16, -0.12, -0.08, -0.04, 0.0, 0.04, 0.08)
"""Seconds around a frame that the network hears."""
WEIGHTS_FILE = Path(__file__).parent.parent / "viewer" / "web" / "speech.npz"
_LARGEST = 1 << 20


def pooled(mel: np.ndarray) -> np.ndarray:
    """(T, 20) log power of four neighbouring bands each, from log-mel rows (T, 80)."""
    return np.log(np.exp(mel.astype(np.float64)).reshape(len(mel), BANDS, -1).mean(-1))


@lru_cache(maxsize=1)
def speech_arrays() -> dict[str, np.ndarray]:
    """What the page needs: the weights, and the filters (513, 20) of a 1024-point spectrum.

    Raises:
        UserError: the file of the weights is missing or damaged.
    """
    try:
        arrays = read_arrays(WEIGHTS_FILE, _LARGEST)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The viewer's speech network {WEIGHTS_FILE} is damaged; install avatar3d again."
        ) from error
    fine = mel_filters(4 * BANDS, 1024, 16000, 0, 8000)
    return {**arrays, "filters": fine.reshape(len(fine), BANDS, 4).mean(-1)}
