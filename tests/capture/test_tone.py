"""HDR video, against the levels that ITU-R BT.2100 and BT.2408 print."""

from fractions import Fraction

import av
import numpy as np
import pytest

from avatar3d.io.tone import HLG, PQ, standard_range
from avatar3d.io.video import Wanted, probe, read_frames, scan_frames

# BT.2408 table 1: signal in per cent of an 18 % grey card and of diffuse white, 26 and 203 cd/m2.
GREY_CARD = {PQ: 0.38, HLG: 0.38}
DIFFUSE_WHITE = {PQ: 0.58, HLG: 0.75}


@pytest.mark.parametrize("curve", [PQ, HLG])
def test_a_grey_card_is_as_bright_as_in_standard_video(curve):
    """BT.1886 shows (26 / 203)^(1 / 2.4) = 42.5 % of the signal."""
    level = standard_range(np.full(3, GREY_CARD[curve]), curve)
    assert level == pytest.approx(0.425, abs=0.012)


@pytest.mark.parametrize("curve", [PQ, HLG])
def test_white_is_bright_highlights_are_brighter_and_order_is_kept(curve):
    ramp = standard_range(np.linspace(0, 1, 200)[:, None].repeat(3, 1), curve)[:, 0]
    assert (np.diff(ramp) >= 0).all()
    assert ramp[0] == 0
    white = standard_range(np.full(3, DIFFUSE_WHITE[curve]), curve)
    assert (white > 0.88).all()
    assert (white < 0.95).all()
    brightest = 0.7518 if curve == PQ else 1.0  # 1000 cd/m2
    assert standard_range(np.full(3, brightest), curve) == pytest.approx(1, abs=0.003)


def test_hues_stay():
    """A BT.709 orange, carried in BT.2020 at a brightness above the knee, keeps its channels'
    ratios (primaries: BT.2087)."""
    to_2020 = np.array(
        [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.088, 0.8956]]
    )
    light = to_2020 @ np.array([1.0, 0.5, 0.25]) * 400 / 10000
    root = light ** (2610 / 16384)
    signal = ((3424 / 4096 + 2413 / 128 * root) / (1 + 2392 / 128 * root)) ** (2523 / 32)
    shown = standard_range(signal, PQ) ** 2.4
    assert shown / shown[0] == pytest.approx([1, 0.5, 0.25], abs=0.004)
    assert 0.6 < shown[0] < 1


@pytest.mark.parametrize("curve", [PQ, HLG])
def test_frames_of_hdr_video_are_tone_mapped(tmp_path, curve):
    """Flat 10-bit frames, whole and as thumbnails, have the tabulated level."""
    levels = np.array([0.2, 0.38, 0.5, 0.58, 0.7])
    path = tmp_path / "hdr.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace = curve, 9, 9
        for index, level in enumerate(levels.repeat(3)):
            planes = np.full((72, 64), 512, np.uint16)
            planes[:48] = round(64 + 876 * level)
            frame = av.VideoFrame.from_ndarray(planes, "yuv420p10le")
            frame.color_range, frame.colorspace, frame.color_trc = 1, 9, curve
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert probe(path).hdr
    expected = 255 * standard_range(levels[:, None].repeat(3, 1), curve)
    shown = np.array(list(read_frames(path)))[::3]
    assert shown.shape == (5, 48, 64, 3)
    assert np.abs(shown - expected[:, None, None]).max() < 2.5
    small = np.array([frame.thumb for frame in scan_frames(path, wanted=Wanted(thumb=8))])[::3]
    assert small.shape == (5, 8, 8, 3)
    assert np.abs(small - expected[:, None, None]).max() < 2.5
