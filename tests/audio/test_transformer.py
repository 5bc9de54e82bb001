"""Features of HuBERT and its kin, on tiny models with random weights."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from avatar3d.audio import transformer
from avatar3d.audio.transformer import check_speech_model, transformer_features
from avatar3d.errors import UserError

RATE = 16_000


@pytest.fixture(scope="module")
def library():
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("transformers")


def saved(library, folder: Path, kind: str = "Hubert") -> Path:
    """A model of the published convolutions (20 ms steps) and one narrow attention layer."""
    config = getattr(library, f"{kind}Config")(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8,) * 7, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer", do_stable_layer_norm=True,
    )  # fmt: skip
    getattr(library, f"{kind}Model")(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
    return folder


def sound(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    time = np.arange(round(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * (200 * time + 60 * np.sin(3 * time)))
    return (0.2 * tone + 0.02 * rng.normal(size=len(time))).astype(np.float32)


@pytest.mark.parametrize("kind", ["Hubert", "Wav2Vec2", "WavLM"])
def test_rows_are_the_models_own_at_the_frames_times(library, tmp_path, kind):
    """50 frames a second fall on the steps of the model, 12.5 ms after their first sample."""
    folder = saved(library, tmp_path / kind, kind)
    samples = sound(2.0)
    rows = transformer_features(samples, 50, 100, folder)
    assert rows.shape == (100, 16)
    assert rows.dtype == np.float32
    extractor = library.Wav2Vec2FeatureExtractor()
    pad = 400 - 200  # the first step that is centred on time 0
    padded = np.pad(samples, (pad, 600))
    heard = (padded - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    given = extractor(samples, sampling_rate=RATE, return_tensors="np").input_values[0]
    np.testing.assert_allclose(heard[pad : pad + len(samples)], given, atol=1e-4)
    import torch

    model = getattr(library, f"{kind}Model").from_pretrained(folder).eval()
    with torch.inference_mode():
        hidden = model(torch.from_numpy(heard[None].astype(np.float32))).last_hidden_state[0]
    # Attention sees a little more silence at the ends here than there.
    difference = np.abs(rows[5:95] - hidden.numpy()[5:95])
    assert difference.mean() < 0.03 * hidden.std()


def test_long_sound_goes_in_pieces(library, tmp_path, monkeypatch):
    folder = saved(library, tmp_path)
    samples = sound(5.0)
    whole = transformer_features(samples, 24, 120, folder)
    monkeypatch.setattr(transformer, "_CHUNK", 2.0)
    pieces = transformer_features(samples, 24, 120, folder)
    assert pieces.shape == whole.shape == (120, 16)
    assert np.abs(pieces - whole).mean() < 0.1 * whole.std()
    past = transformer_features(samples, 24, 200, folder)
    assert past.shape == (200, 16)
    assert np.isfinite(past).all()


def test_what_is_no_such_model_is_one_sentence(library, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        check_speech_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "whisper"}))
    with pytest.raises(UserError, match="'whisper'"):
        check_speech_model(tmp_path)
    folder = saved(library, tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        transformer_features(sound(0.5), 25, 12, folder)
    assert "\n" not in str(caught.value)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        check_speech_model(folder)
    (folder / "model.safetensors").touch()
    monkeypatch.setattr(transformer, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install"):
        check_speech_model(folder)
