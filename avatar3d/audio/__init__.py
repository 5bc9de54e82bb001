"""Sound: reading any file, one row of speech features per video frame, and text to speech."""

from avatar3d.audio.features import features
from avatar3d.audio.files import SAMPLE_RATE, extract_audio, load_audio, save_wav

__all__ = ["SAMPLE_RATE", "extract_audio", "features", "load_audio", "save_wav"]
