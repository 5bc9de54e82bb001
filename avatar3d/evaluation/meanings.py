"""What each figure of a report means, and which way is better."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["FIGURES", "PLOTTED", "SECTIONS", "Figure"]


@dataclass(frozen=True)
class Figure:
    """One row of the table.

    Attributes:
        meaning: with unit; better: which values are; section: heading it stands under.
    """

    meaning: str
    better: Literal["higher", "lower", "one", "zero", ""]
    section: str


_PICTURE, _FACE, _MOUTH = "Whole frame", "Face", "Lips and sound"
_BODY, _STEADY, _UNSEEN = "Head and torso", "Steadiness", "Beyond the test frames"
SECTIONS = (_PICTURE, _FACE, _MOUTH, _BODY, _STEADY, _UNSEEN)

FIGURES: dict[str, Figure] = {
    "psnr": Figure("whole frame PSNR, dB", "higher", _PICTURE),
    "ssim": Figure("whole frame SSIM", "higher", _PICTURE),
    "ms_ssim": Figure("whole frame MS-SSIM", "higher", _PICTURE),
    "lpips": Figure("whole frame LPIPS (AlexNet), 0 is the recording", "lower", _PICTURE),
    "fid": Figure("FID between renders and recording, noisy for few frames", "lower", _PICTURE),
    "cpbd": Figure("whole frame sharpness without reference, CPBD", "higher", _PICTURE),
    "person_error": Figure("error on the whole person, 8-bit steps", "lower", _PICTURE),
    "face_psnr": Figure("face box PSNR, dB", "higher", _FACE),
    "face_ssim": Figure("face box SSIM", "higher", _FACE),
    "face_sharpness": Figure("face gradient energy, 1 is the recording's", "one", _FACE),
    "pose_degrees": Figure("head turned otherwise, by tracking both again, deg", "lower", _FACE),
    "aue_upper": Figure("facial actions of eyes and brows (AUE-U)", "lower", _FACE),
    "csim": Figure("same person, cosine of the descriptors (CSIM); by dlib's network strangers "
                   "have 0.77 to 0.93", "higher", _FACE),
    "openface_aue_upper": Figure("AUE-U by OpenFace", "lower", _FACE),
    "blinks": Figure("blinks a minute", "", _FACE),
    "blink_seconds": Figure("mean length of a blink, s", "", _FACE),
    "mouth_psnr": Figure("mouth box PSNR, dB", "higher", _MOUTH),
    "mouth_ssim": Figure("mouth box SSIM", "higher", _MOUTH),
    "mouth_sharpness": Figure("mouth gradient energy, 1 is the recording's", "one", _MOUTH),
    "lmd": Figure("lip landmark distance, pixels", "lower", _MOUTH),
    "lmd_68": Figure("LMD of mouth points 48-67, centred, pixels", "lower", _MOUTH),
    "lmd_raw": Figure("LMD of the same, not centred, pixels", "lower", _MOUTH),
    "lmd_eyes": Figure("LMD centred, in eye distances", "lower", _MOUTH),
    "aue": Figure("facial actions, squared grades (AUE)", "lower", _MOUTH),
    "aue_lower": Figure("facial actions of lips and jaw (AUE-L)", "lower", _MOUTH),
    "openface_aue": Figure("AUE by OpenFace", "lower", _MOUTH),
    "openface_aue_lower": Figure("AUE-L by OpenFace", "lower", _MOUTH),
    "lip_gap_correlation": Figure("lip gap correlation with the recording", "higher", _MOUTH),
    "lip_width_correlation": Figure("lip width correlation with the recording", "higher", _MOUTH),
    "lip_lag": Figure("lips follow the recorded ones by, s", "zero", _MOUTH),
    "av_offset": Figure("the sound follows the lips by, s", "", _MOUTH),
    "lse_c": Figure("lips fit the sound for SyncNet, confidence (LSE-C)", "higher", _MOUTH),
    "lse_d": Figure("their distance for SyncNet (LSE-D)", "lower", _MOUTH),
    "sync_offset": Figure("the sound is late for SyncNet by, s", "zero", _MOUTH),
    "wer": Figure("words of the voice that a recogniser mistakes (WER)", "lower", _MOUTH),
    "sound_correlation": Figure("correlation of the lip gap with the loudness", "higher", _MOUTH),
    "seam_error": Figure(
        "error in a 12-pixel band along head and neck, 8-bit steps", "lower", _BODY
    ),
    "seam_ratio": Figure(
        "that band's error over the inner face's; a seam shows from about 1.3", "lower", _BODY
    ),
    "seam_contrast_ratio": Figure(
        "that band's error over that of equally contrasted places of the face", "lower", _BODY
    ),
    "pasted_psnr": Figure(
        "whole frame PSNR with the recording's torso and background pasted in, dB; not ours to "
        "claim, only for comparison with papers that do so", "higher", _BODY,
    ),
    "jitter": Figure("energy of the landmarks' shaking, 1 is the recording's", "one", _STEADY),
    "shaking": Figure("the landmarks' shaking, thousandths of the eye distance", "lower", _STEADY),
    "flicker": Figure("change since the frame before that is not recorded, 8-bit steps", "lower",
                      _STEADY),
    "train_psnr": Figure("whole frame PSNR on frames of the training, dB", "", _UNSEEN),
    "train_face_psnr": Figure("face box PSNR on frames of the training, dB", "", _UNSEEN),
    "gap": Figure("by which training frames are better, whole frame, dB", "zero", _UNSEEN),
    "face_gap": Figure("the same in the face box, dB", "zero", _UNSEEN),
    "novel_holes": Figure(
        "share of the turned person (35 degrees) that is see-through", "lower", _UNSEEN
    ),
    "novel_foreign": Figure(
        "share of the turned head in colours not shown there from the front", "lower", _UNSEEN
    ),
    "cameras_20": Figure("head PSNR from cameras 20 degrees beside, dB", "higher", _UNSEEN),
    "cameras_40": Figure("head PSNR from cameras 40 degrees beside, dB", "higher", _UNSEEN),
    "confidence": Figure("expressions asked for that were filmed, 1 is all", "higher", _UNSEEN),
    "opening_in_silence": Figure("lip opening in digital silence, 1 is open", "zero", _MOUTH),
    "opening_in_noise": Figure("lip opening in noise 40 dB below speech", "zero", _MOUTH),
    "opening_in_pause": Figure("lip opening between two sentences", "zero", _MOUTH),
    "bilabials_met": Figure("share of m, b, p at which the lips meet", "higher", _MOUTH),
    "vowels_shut": Figure("share of open vowels said with shut lips", "lower", _MOUTH),
}  # fmt: skip
"""Rows of the tables, in order."""

PLOTTED = {
    "Whole frame, dB": ("psnr",),
    "Face, dB": ("face_psnr",),
    "Mouth, dB": ("mouth_psnr",),
    "Lips, pixels": ("lmd_68",),
    "Flicker, 8-bit steps": ("flicker",),
}
"""Per-frame figures that a page draws over time, by the plot's title."""
