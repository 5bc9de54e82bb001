"""Live Link Face recordings in and out."""

import csv

import numpy as np
import pytest

from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.motion import Motion
from avatar3d.motion.livelink import HEADER, write_livelink
from avatar3d.motion.paths import head_angles, head_rotations

# As the app writes it, copied from public readers of its files.
APP_HEADER = (
    "Timecode,BlendShapeCount,EyeBlinkLeft,EyeLookDownLeft,EyeLookInLeft,EyeLookOutLeft,"
    "EyeLookUpLeft,EyeSquintLeft,EyeWideLeft,EyeBlinkRight,EyeLookDownRight,EyeLookInRight,"
    "EyeLookOutRight,EyeLookUpRight,EyeSquintRight,EyeWideRight,JawForward,JawRight,JawLeft,"
    "JawOpen,MouthClose,MouthFunnel,MouthPucker,MouthRight,MouthLeft,MouthSmileLeft,"
    "MouthSmileRight,MouthFrownLeft,MouthFrownRight,MouthDimpleLeft,MouthDimpleRight,"
    "MouthStretchLeft,MouthStretchRight,MouthRollLower,MouthRollUpper,MouthShrugLower,"
    "MouthShrugUpper,MouthPressLeft,MouthPressRight,MouthLowerDownLeft,MouthLowerDownRight,"
    "MouthUpperUpLeft,MouthUpperUpRight,BrowDownLeft,BrowDownRight,BrowInnerUp,BrowOuterUpLeft,"
    "BrowOuterUpRight,CheekPuff,CheekSquintLeft,CheekSquintRight,NoseSneerLeft,NoseSneerRight,"
    "TongueOut,HeadYaw,HeadPitch,HeadRoll,LeftEyeYaw,LeftEyePitch,LeftEyeRoll,RightEyeYaw,"
    "RightEyePitch,RightEyeRoll"
)


def some_motion(frames: int = 70, fps: float = 25.0) -> Motion:
    rng = np.random.default_rng(4)
    return Motion(
        fps=fps,
        expression=rng.random((frames, len(ARKIT_52))),
        head_pose=head_rotations(*rng.uniform(-0.4, 0.4, (3, frames))),
        gaze=rng.uniform(-0.3, 0.3, (frames, 2, 2)),
    )


def app_file(path, rows, header=APP_HEADER):
    """A file as the app writes it; rows are (timecode, {column: value})."""
    names = header.split(",")
    lines = [header]
    for code, values in rows:
        cells = [str(values.get(name, 0.0)) for name in names[2:]]
        lines.append(",".join([code, "61", *cells]))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_header_is_the_apps():
    assert ",".join(HEADER) == APP_HEADER


@pytest.mark.parametrize("fps", [22.13, 25.0, 29.97, 60.0])
def test_what_is_written_is_read_back(tmp_path, fps):
    motion = some_motion(fps=fps)
    write_livelink(motion, tmp_path / "take.csv")
    back = Motion.load(tmp_path / "take.csv")
    assert len(back) == len(motion)
    assert back.fps == pytest.approx(fps, rel=1e-4)
    np.testing.assert_allclose(back.expression, motion.expression, atol=1e-6)
    np.testing.assert_allclose(back.head_pose, motion.head_pose, atol=1e-6)
    np.testing.assert_allclose(back.gaze, motion.gaze, atol=1e-6)


def test_columns_mean_what_they_say(tmp_path):
    weights = np.zeros((2, len(ARKIT_52)))
    weights[1, [ARKIT_INDEX["jawLeft"], ARKIT_INDEX["mouthRight"]]] = 0.25, 0.5
    pose = head_rotations(*np.array([[0.0, 0.3], [0.0, 0.2], [0.0, 0.1]]))
    motion = Motion(fps=30, expression=weights, head_pose=pose)
    write_livelink(motion, tmp_path / "take.csv")
    with open(tmp_path / "take.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert float(rows[1]["JawLeft"]) == 0.25
    assert float(rows[1]["JawRight"]) == 0
    assert float(rows[1]["MouthRight"]) == 0.5
    assert rows[1]["Timecode"] == "00:00:00:02.000"
    # ARKit's axes are right-handed: yaw about y to the left, pitch about x down, roll about z.
    angles = [float(rows[1][f"Head{name}"]) for name in ("Yaw", "Pitch", "Roll")]
    assert angles == pytest.approx([0.3, -0.2, -0.1], abs=1e-6)


def test_a_recording_with_dropped_frames_is_resampled(tmp_path):
    kept = [i for i in range(181) if i not in (50, 51, 52)]
    rows = [
        (f"09:59:5{7 + i // 60}:{i % 60:02d}.250", {"JawOpen": i / 180}) if i < 180 else
        ("10:00:00:00.250", {"JawOpen": 1.0})
        for i in kept
    ]  # fmt: skip
    motion = Motion.load(app_file(tmp_path / "take.csv", rows))
    assert motion.fps == pytest.approx(60, rel=1e-3)
    assert len(motion) == 181
    opening = motion.expression[:, ARKIT_INDEX["jawOpen"]]
    np.testing.assert_allclose(opening, np.arange(181) / 180, atol=1e-3)


def test_the_eyes_tell_the_sense_of_the_angles(tmp_path):
    """Looking up and to the left, written by an app with the opposite senses."""
    rows = []
    for i in range(120):
        look = np.sin(i / 10)
        rows.append(
            (
                f"00:00:0{i // 60}:{i % 60:02d}.000",
                {
                    "EyeLookUpLeft": max(look, 0), "EyeLookDownLeft": max(-look, 0),
                    "EyeLookOutLeft": max(look, 0), "EyeLookInLeft": max(-look, 0),
                    "LeftEyePitch": 0.2 * look, "RightEyePitch": 0.2 * look,
                    "LeftEyeYaw": -0.3 * look, "RightEyeYaw": -0.3 * look, "HeadYaw": -0.1,
                },
            )
        )  # fmt: skip
    motion = Motion.load(app_file(tmp_path / "take.csv", rows))
    look = np.sin(np.arange(120) / 10)
    np.testing.assert_allclose(motion.gaze[:, 0, 0], 0.3 * look, atol=1e-6)
    np.testing.assert_allclose(motion.gaze[:, 1, 1], 0.2 * look, atol=1e-6)
    np.testing.assert_allclose(head_angles(motion.head_pose)[0], 0.1, atol=1e-6)


def test_missing_columns_are_named_and_count_as_zero(tmp_path, capsys):
    header = ",".join(n for n in APP_HEADER.split(",") if not n.startswith(("Tongue", "RightEye")))
    path = app_file(tmp_path / "take.csv", [("00:00:00:00.000", {"JawOpen": 0.5})], header)
    motion = Motion.load(path)
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert "TongueOut, RightEyeYaw, RightEyePitch, RightEyeRoll" in said
    assert motion.expression[0, ARKIT_INDEX["jawOpen"]] == 0.5
    assert not motion.expression[0, ARKIT_INDEX["tongueOut"]]
    path.write_text(path.read_text() + "00:00:00:01.000,61,0.1\n")
    with pytest.raises(UserError, match=r"Line 3 .* has 3 columns"):
        Motion.load(path)


def test_frames_without_a_face_are_bridged(tmp_path):
    path = tmp_path / "take.csv"
    rows = [(f"00:00:0{i // 60}:{i % 60:02d}.000", {"JawOpen": i / 180}) for i in range(180)]
    lines = app_file(path, rows).read_text().splitlines()
    for lost in (71, 72, 100):
        code = lines[lost].split(",")[0]
        lines[lost] = f"{code},0" if lost == 71 else f"{code},0" + "," * 61
    path.write_text("\n".join(lines) + "\n")
    motion = Motion.load(path)
    assert len(motion) == 180
    opening = motion.expression[:, ARKIT_INDEX["jawOpen"]]
    np.testing.assert_allclose(opening, np.arange(180) / 180, atol=1e-3)


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n1,2\n", "Timecode,BlendShapeCount,JawOpen\n", APP_HEADER + "\n00:00:00:00,61,x\n",
     "Timecode,Other\n00:00:00:00.000,1\n", APP_HEADER + "\nnow" + ",0" * 62 + "\n",
     APP_HEADER + "\n00:00:00:00.000,61" + ",nan" * 61 + "\n", "\x00\xff"],
)  # fmt: skip
def test_other_files_are_one_sentence(tmp_path, text):
    path = tmp_path / "bad.csv"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=r"bad\.csv"):
        Motion.load(path)
