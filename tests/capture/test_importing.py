"""Folders as other programs lay them out, made from a synthetic person, become subjects."""

import json
from pathlib import Path

import numpy as np
import pytest

from avatar3d.audio import save_wav
from avatar3d.capture import CaptureConfig, import_folder
from avatar3d.capture.recordings import read_recording
from avatar3d.errors import UserError
from avatar3d.io.images import read_image, write_image
from avatar3d.subject import PARSING_LABELS, Subject
from avatar3d.synth.clip import to_bytes

FRAMES = 22
CONFIG = CaptureConfig(size=320, iterations=40, identity_frames=10, chunk=32, detector="solutions")


@pytest.fixture(scope="module")
def drawn(person):
    """Pictures, alphas and labels of the first frames."""
    pictures = [person.picture(i) for i in range(FRAMES)]
    return [(to_bytes(p.image), to_bytes(p.alpha), p.label) for p in pictures]


def dump(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def pose() -> list[list[float]]:
    return np.eye(4).tolist()


def rad_nerf(folder: Path, person, drawn, first: int = 3) -> Path:
    """As data_utils/process.py writes it; tracking lost the frames before `first`."""
    head = {"lips", "skin", "left_eye", "right_eye", "brows", "nose", "mouth_interior", "teeth",
            "hair", "ears"}  # fmt: skip
    for name in ("ori_imgs", "parsing", "gt_imgs", "torso_imgs"):
        (folder / name).mkdir(parents=True)
    for index, (image, alpha, label) in enumerate(drawn):
        write_image(folder / "ori_imgs" / f"{index}.jpg", image)
        (folder / "ori_imgs" / f"{index}.lms").write_text("1.0 2.0\n" * 68)
        code = np.full((*label.shape, 3), 255, np.uint8)
        for value, name in enumerate(PARSING_LABELS):
            color = (0, 0, 255) if name in head else (0, 255, 0) if name == "neck" else (255, 0, 0)
            if name != "background":
                code[(label == value) & (alpha > 127)] = color
        write_image(folder / "parsing" / f"{index}.png", code)
    write_image(folder / "bc.jpg", person.background)
    save_wav(folder / "aud.wav", person.samples, person.rate)
    features = np.arange(FRAMES - 1, dtype=np.float32)[:, None, None] + np.zeros(
        (16, 29), np.float32
    )
    np.save(folder / "aud_ds.npy", features)  # they end a frame early now and then
    np.save(folder / "aud_bad.npy", np.array([{"a": 1}], object), allow_pickle=True)
    (folder / "au.csv").write_text("frame, AU45_r\n")
    tracked = list(range(first, FRAMES))
    cut = first + len(tracked) * 10 // 11
    for name, numbers in (("train", range(first, cut)), ("val", range(cut, FRAMES))):
        frames = [{"img_id": i, "aud_id": i, "transform_matrix": pose()} for i in numbers]
        size = person.camera.width
        dump(
            folder / f"transforms_{name}.json",
            {"focal_len": 2.2 * size, "cx": size / 2, "cy": size / 2, "frames": frames},
        )
    return folder


def insta(folder: Path, person, drawn) -> Path:
    """As scripts/transforms.py and postprocess.py write it: images without torso, matted with."""
    for name in ("images", "matted", "background", "flame/exp", "meshes", "depth", "seg_mask"):
        (folder / name).mkdir(parents=True)
    frames = []
    for index, (image, alpha, label) in enumerate(drawn):
        write_image(folder / "background" / f"{index:05d}.png", image)
        cut = np.dstack([image, alpha])
        write_image(folder / "matted" / f"{index:05d}.png", cut)
        cut[label == PARSING_LABELS.index("clothes"), 3] = 0
        write_image(folder / "images" / f"{index:05d}.png", cut)
        frames.append(
            {
                "file_path": f"images/{index:05d}.png", "transform_matrix": pose(),
                "exp_path": f"flame/exp/{index:05d}.txt",
            }
        )  # fmt: skip
    size = person.camera.width
    head = {"fl_x": 2.2 * size, "fl_y": 2.2 * size, "w": size, "h": size}
    for name, part in (("", frames), ("_train", frames[:-6]), ("_test", frames[-6:])):
        dump(folder / f"transforms{name}.json", {**head, "frames": part})
    return folder


def vhap(folder: Path, person, drawn) -> Path:
    """As export_as_nerf_dataset.py writes it, with a second camera at the side."""
    for name in ("images", "fg_masks", "flame_param"):
        (folder / name).mkdir(parents=True)
    size = person.camera.width
    parts: dict[str, list] = {"train": [], "val": [], "test": []}
    for index, (image, alpha, _) in enumerate(drawn):
        np.savez(folder / "flame_param" / f"{index:05d}.npz", expr=np.zeros((1, 100)))
        for camera in range(2):
            stem = f"{index:05d}_{camera:02d}.png"
            share = alpha[..., None] / 255
            white = (image * share + 255 * (1 - share)).astype(np.uint8)
            write_image(folder / "images" / stem, white[:, ::-1] if camera == 0 else white)
            write_image(folder / "fg_masks" / stem, alpha)
            matrix = np.eye(4)
            matrix[:3, 3] = (1, 0, 0.2) if camera == 0 else (0, 0, 1)
            frame = {
                "timestep_index": index, "timestep_index_original": 3 * index,
                "camera_index": camera, "cx": size / 2, "cy": size / 2, "fl_x": 2.2 * size,
                "fl_y": 2.2 * size, "h": size, "w": size, "transform_matrix": matrix.tolist(),
                "file_path": f"images/{stem}", "fg_mask_path": f"fg_masks/{stem}",
                "flame_param_path": f"flame_param/{index:05d}.npz",
            }  # fmt: skip
            split = "test" if index >= 15 else "train" if camera == 0 else "val"
            parts[split].append(frame)
    for name, frames in parts.items():
        dump(folder / f"transforms_{name}.json", {"frames": frames})
    return folder


def flash_avatar(folder: Path, drawn) -> Path:
    """As its loader reads it: frames from 00001, alpha as JPEG."""
    for name in ("imgs", "alpha", "parsing"):
        (folder / name).mkdir(parents=True)
    for index, (image, alpha, _) in enumerate(drawn):
        write_image(folder / "imgs" / f"{index + 1:05d}.jpg", image)
        write_image(folder / "alpha" / f"{index + 1:05d}.jpg", alpha)
        write_image(folder / "parsing" / f"{index + 1:05d}_neckhead.png", alpha)
    return folder


def overlap(alpha: np.ndarray, truth: np.ndarray) -> float:
    a, b = alpha > 127, truth > 127
    return (a & b).sum() / (a | b).sum()


def test_rad_nerf_becomes_a_subject(models, person, drawn, tmp_path, anny):
    folder = rad_nerf(tmp_path / "obama", person, drawn)
    subject = import_folder(folder, tmp_path / "subject", CONFIG, anny)
    count = FRAMES - 3
    assert len(subject) == count
    assert subject.info.origin == "RAD-NeRF"
    cut = count * 10 // 11
    assert subject.info.split == {
        "train": list(range(cut)), "test": list(range(cut, count))
    }  # fmt: skip
    # The very bytes of the frames, in order, from the first tracked one on.
    for index in (0, count - 1):
        stored = (subject.folder / "frames" / f"{index:06d}.jpg").read_bytes()
        assert stored == (folder / "ori_imgs" / f"{index + 3}.jpg").read_bytes()
        assert overlap(subject.matte(index), drawn[index + 3][1]) > 0.96
    assert subject.tracking.K[0, 0] == pytest.approx(2.2 * 320)
    assert subject.tracking.valid.all()
    error = np.linalg.norm(subject.tracking.landmarks_fit - person.landmarks[3:FRAMES], axis=-1)
    assert np.median(error) < 2.5
    assert subject.audio_path is not None
    assert "mel" in subject.audio_features
    assert all(len(rows) == count for rows in subject.audio_features.values())
    given = subject.audio_features["aud_ds"]
    assert given.shape == (count, 16 * 29)
    assert given[:, 0].tolist() == [*range(3, FRAMES - 1), FRAMES - 2]
    assert "aud_bad" not in subject.audio_features
    assert any("aud_bad.npy" in warning for warning in subject.info.warnings)
    assert Subject(subject.folder).background.shape == (320, 320, 3)
    again = import_folder(folder, tmp_path / "subject", CONFIG, anny)
    assert again.info.stages == subject.info.stages


def test_several_cameras_become_the_one_in_front(models, person, drawn, tmp_path, anny):
    folder = vhap(tmp_path / "vhap", person, drawn)
    subject = import_folder(folder, tmp_path / "subject", CONFIG, anny, fps=24)
    assert subject.info.origin == "VHAP"
    assert subject.fps == 24
    assert subject.info.split == {
        "train": list(range(15)), "test": list(range(15, FRAMES))
    }  # fmt: skip
    assert subject.info.frame_format == "png"
    # PNG frames lose nothing, and are not the mirrored ones of the camera at the side.
    assert np.array_equal(subject.frame(4), read_image(folder / "images" / "00004_01.png"))
    assert overlap(subject.matte(4), drawn[4][1]) > 0.98
    assert subject.audio_path is None
    assert np.median(subject.background) >= 250


def test_insta_frames_have_their_torso_and_background(person, drawn, tmp_path):
    recording = read_recording(insta(tmp_path, person, drawn))
    assert recording.kind == "INSTA"
    assert recording.frames[5] == tmp_path / "background" / "00005.png"
    np.testing.assert_allclose(
        recording.alpha(read_image(recording.masks[5])) * 255, drawn[5][1], atol=0.5
    )
    assert recording.focal == pytest.approx(2.2 * 320)
    assert recording.split["test"] == tuple(range(FRAMES - 6, FRAMES))
    for path in (tmp_path / "background").iterdir():
        path.unlink()
    assert read_recording(tmp_path).frames[5] == tmp_path / "matted" / "00005.png"


def test_flash_avatar_pairs_frames_with_their_alpha(drawn, tmp_path):
    recording = read_recording(flash_avatar(tmp_path, drawn))
    assert recording.kind == "FlashAvatar"
    assert [p.name for p in recording.frames[:2]] == ["00001.jpg", "00002.jpg"]
    assert overlap(recording.alpha(read_image(recording.masks[7])) * 255, drawn[7][1]) > 0.98
    assert recording.split == {}  # too short for the published 500 test frames


def test_a_changed_frame_changes_the_fingerprint(drawn, tmp_path):
    folder = flash_avatar(tmp_path, drawn)
    before = read_recording(folder).fingerprint()
    assert read_recording(folder).fingerprint() == before
    write_image(folder / "imgs" / "00003.jpg", drawn[0][0])
    assert read_recording(folder).fingerprint() != before


def test_what_cannot_be_imported_is_one_sentence(person, drawn, tmp_path):
    with pytest.raises(UserError, match="check the name"):
        read_recording(tmp_path / "none")
    with pytest.raises(UserError, match="not a folder prepared for"):
        read_recording(tmp_path)
    folder = vhap(tmp_path / "a", person, drawn[:3])
    (folder / "images" / "00001_01.png").unlink()
    with pytest.raises(UserError, match="incomplete"):
        read_recording(folder)
    escape = json.loads((folder / "transforms_val.json").read_text())
    escape["frames"][0]["file_path"] = "../../secret.png"
    dump(folder / "transforms_val.json", escape)
    with pytest.raises(UserError, match="outside itself"):
        read_recording(folder)
    (folder / "transforms_val.json").write_text('{"frames": [1]}')
    with pytest.raises(UserError, match="transforms_val"):
        read_recording(folder)
    with pytest.raises(UserError, match="only 3 frames"):
        import_folder(flash_avatar(tmp_path / "b", drawn[:3]), tmp_path / "out", CONFIG)
