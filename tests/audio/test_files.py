"""Reading and writing sound."""

import wave
from pathlib import Path

import av
import numpy as np
import pytest
from scipy.signal import resample_poly

from avatar3d.audio import SAMPLE_RATE, extract_audio, files, load_audio, save_wav
from avatar3d.errors import UserError
from avatar3d.io.packets import packets


def chirp(rate: int, seconds: float = 1.0, top: float = 3000.0) -> np.ndarray:
    t = np.arange(round(rate * seconds)) / rate
    fade = np.minimum(1, 40 * np.minimum(t, seconds - t))
    return 0.5 * fade * np.sin(2 * np.pi * (100 * t + (top - 100) * t**2 / (2 * seconds)))


def write(
    path: Path,
    channels: np.ndarray,
    rate: int,
    codec: str,
    pictures: bool = False,
    start: float = 0.0,
) -> Path:
    """Encode (C, N) with PyAV; the sound starts `start` seconds after the first picture."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(channels)]
    with av.open(str(path), "w") as container:
        if pictures:
            video = container.add_stream("mpeg4", rate=25)
            video.width = video.height = 64
        sound = container.add_stream(codec, rate=rate, layout=layout)
        if pictures:
            for _ in range(25):
                picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
                container.mux(video.encode(picture))
            container.mux(video.encode())
        # Packed integers or planar floats are what every encoder here accepts after conversion.
        frame = av.AudioFrame.from_ndarray(channels.astype(np.float32), "fltp", layout)
        frame.sample_rate, frame.pts = rate, round(start * rate)
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return path


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_agrees_with_scipy(tmp_path: Path, rate: int) -> None:
    signal = chirp(rate)
    path = write(tmp_path / "a.wav", signal[None], rate, "pcm_f32le")
    samples, out_rate = load_audio(path)
    common = np.gcd(rate, SAMPLE_RATE)
    expected = resample_poly(signal, SAMPLE_RATE // common, rate // common)
    assert out_rate == SAMPLE_RATE
    assert samples.dtype == np.float32
    assert abs(len(samples) - SAMPLE_RATE) <= 2
    count = min(len(samples), len(expected))
    error = samples[:count] - expected[:count]
    assert np.sqrt(np.mean(error**2)) < 0.004 * np.sqrt(np.mean(expected**2))


def test_content_above_half_the_rate_does_not_fold_back(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 11_000 * np.arange(48_000) / 48_000)
    samples, _ = load_audio(write(tmp_path / "a.wav", tone[None], 48_000, "pcm_f32le"))
    assert np.sqrt(np.mean(samples[800:-800] ** 2)) < 0.001


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = chirp(16_000), np.roll(chirp(16_000), 500) * 0.3
    path = write(tmp_path / "a.wav", np.stack([left, right]), 16_000, "pcm_f32le")
    assert np.allclose(load_audio(path)[0], (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize(("name", "codec"), [("a.mp3", "libmp3lame"), ("a.flac", "flac"),
                                             ("a.ogg", "libopus"), ("a.m4a", "aac")])  # fmt: skip
def test_common_codecs_keep_sound_and_time(tmp_path: Path, name: str, codec: str) -> None:
    signal = chirp(48_000)
    samples, _ = load_audio(write(tmp_path / name, signal[None], 48_000, codec))
    expected = resample_poly(signal, 1, 3)
    count = min(len(samples), len(expected))
    correlation = np.correlate(samples[:count], expected[:count], "full")
    lag = int(np.argmax(correlation)) - (count - 1)
    assert abs(lag) <= 0.03 * SAMPLE_RATE  # encoders without a priming note shift by a frame
    assert correlation.max() > 0.9 * np.dot(expected, expected)


@pytest.mark.parametrize("start", [0.0, 0.4])
def test_time_zero_is_the_first_picture(tmp_path: Path, start: float) -> None:
    signal = np.zeros(48_000)
    signal[24_000] = 0.9  # a click half a second after the sound starts
    video = write(tmp_path / "v.mkv", signal[None], 48_000, "pcm_s16le", pictures=True, start=start)
    samples, _ = load_audio(video)
    assert np.argmax(np.abs(samples)) / SAMPLE_RATE == pytest.approx(start + 0.5, abs=0.002)


def test_extract_audio_tells_whether_there_is_sound(tmp_path: Path) -> None:
    video = write(tmp_path / "v.mp4", chirp(48_000)[None], 48_000, "aac", pictures=True)
    assert extract_audio(video, tmp_path / "a.wav")
    with wave.open(str(tmp_path / "a.wav")) as handle:
        assert (handle.getframerate(), handle.getnchannels()) == (SAMPLE_RATE, 1)
    mute = tmp_path / "mute.mp4"
    with av.open(str(mute), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode())
    assert not extract_audio(mute, tmp_path / "none.wav")
    assert not (tmp_path / "none.wav").exists()


def test_saved_sound_reads_back_within_one_step_of_16_bits(tmp_path: Path) -> None:
    signal = np.concatenate([chirp(16_000), [2.0, -2.0]])
    save_wav(tmp_path / "a.wav", signal)
    assert np.abs(load_audio(tmp_path / "a.wav")[0] - np.clip(signal, -1, 1)).max() < 1 / 16_000


def test_a_truncated_file_gives_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp3", chirp(48_000)[None], 48_000, "libmp3lame")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert 0.3 < len(load_audio(path)[0]) / SAMPLE_RATE < 0.8


def test_bad_files_are_explained_in_one_sentence(tmp_path: Path) -> None:
    text = tmp_path / "text.wav"
    text.write_text("this is not sound\n" * 50)
    empty = tmp_path / "empty.mp3"
    empty.write_bytes(b"")
    void = tmp_path / "void.wav"
    with wave.open(str(void), "wb") as handle:
        handle.setnchannels(1)
        handle.setsampwidth(2)
        handle.setframerate(16_000)
    broken = write(tmp_path / "nan.wav", np.full((1, 1600), np.nan), 16_000, "pcm_f32le")
    for path in (text, empty, void, broken, tmp_path / "missing.wav", tmp_path):
        with pytest.raises(UserError, match=str(path)) as caught:
            load_audio(path)
        assert "\n" not in str(caught.value)


def test_endless_sound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_SECONDS", 0.5)
    save_wav(tmp_path / "a.wav", chirp(16_000))
    with pytest.raises(UserError, match="longer"):
        load_audio(tmp_path / "a.wav")


def test_a_track_that_turns_up_midway_ends_the_sound(tmp_path: Path, monkeypatch) -> None:
    """PyAV raises IndexError where a damaged transport stream announces one."""
    path = write(tmp_path / "a.wav", chirp(16_000)[None], 16_000, "pcm_s16le")

    class Damaged:
        def demux(self, stream: object):
            with av.open(str(path)) as container:
                yield next(container.demux(audio=0))
            raise IndexError("list index out of range")

    assert len(list(packets(Damaged(), None))) == 1


def test_more_channels_than_can_be_read_safely_are_refused(tmp_path: Path) -> None:
    """PyAV reads beyond the planes of such frames; a damaged AAC track had 29 channels midway."""
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setnchannels(16)
        sound.setsampwidth(2)
        sound.setframerate(16000)
        sound.writeframes(bytes(16 * 2 * 1600))
    with pytest.raises(UserError, match="16 channels"):
        load_audio(tmp_path / "a.wav")
