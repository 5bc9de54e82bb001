"""A local server that shows an avatar in the browser, drawn by our own renderer on this machine."""

import base64
import mimetypes
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from avatar3d.avatar.torso import predict_torso
from avatar3d.errors import UserError
from avatar3d.geometry import Camera, rigid_inverse, yaw_pitch_roll
from avatar3d.head.arkit import ARKIT_52
from avatar3d.motion.emotions import EMOTIONS
from avatar3d.motion.motion import Motion
from avatar3d.motion.sliders import expression_vector
from avatar3d.progress import say

if TYPE_CHECKING:
    from avatar3d.avatar import PosedAvatar

__all__ = ["LiveViewer", "view"]

MAX_HEIGHT = 1024
"""Pixels; larger windows show an enlarged picture."""
FRAMES_PER_SECOND = 25
GROUPS = {
    "Jaw": ("jaw",), "Mouth": ("mouth",), "Tongue": ("tongue",), "Eyes": ("eye",),
    "Brows": ("brow",), "Cheeks and nose": ("cheek", "nose"),
}  # fmt: skip


def view(avatar: "PosedAvatar", port: int = 8080, host: str = "127.0.0.1") -> None:
    """Serve `avatar` until interrupted.

    Args:
        avatar: what to show.
        port: first port to try; the next free one is taken when it is in use.
        host: address to listen on; "0.0.0.0" lets other machines in.

    Raises:
        UserError: viser is not installed.
    """
    viewer = LiveViewer(avatar, port, host)
    say(f"The avatar is at http://{host}:{viewer.port} - press Ctrl-C to stop.")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        say("Stopped.")
    finally:
        viewer.stop()


class LiveViewer:
    """A running server. Every browser window has its own viewpoint; the face is common to all.

    Attributes:
        port: where it listens.
    """

    def __init__(self, avatar: "PosedAvatar", port: int = 8080, host: str = "127.0.0.1") -> None:
        try:
            import viser
        except ImportError as error:
            raise UserError(
                "The live viewer needs viser; run `pip install 'avatar3d[viewer]'`."
            ) from error
        self.avatar = avatar
        self._server = viser.ViserServer(host=host, port=port, label="avatar3d", verbose=False)
        self.port: int = self._server.get_port()
        self._spoken: Motion | None = None  # for a sound that was given, while it lasts
        self._since = time.monotonic()  # when what plays began
        self._shown: dict[int, Any] = {}  # what each window shows, to draw only what is new
        self._panel: Any = None  # a picture above the controls
        self._running = True
        self._drawn: list[float] = []  # when pictures of the last second were sent
        self._rate: Any = self._server.gui.add_text("Frames a second", "-", disabled=True)
        self._controls = self._add_controls(self._server.gui)
        self._add_speech(self._server.gui)
        self._place_camera(self._server)
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Shut the server down."""
        self._running = False
        self._thread.join(10)
        self._server.stop()

    def show(self, avatar: "PosedAvatar", panel: np.ndarray | None = None) -> None:
        """Show another state of the avatar, and a picture (H, W, 3) uint8 above the controls."""
        self.avatar = avatar
        self._shown.clear()
        if panel is None:
            return
        if self._panel is None:
            self._panel = self._server.gui.add_image(panel, order=-1, format="jpeg")
        else:
            self._panel.image = panel

    def speak(self, sound: bytes, name: str) -> None:
        """Perform a sound file, and let every window hear it.

        Raises:
            UserError: the file cannot be read as sound.
        """
        from avatar3d.audio import load_audio
        from avatar3d.motion.speech import motion_for_audio

        with tempfile.TemporaryDirectory(prefix="avatar3d-") as folder:
            path = Path(folder) / f"sound{Path(name).suffix}"
            path.write_bytes(sound)
            samples, _ = load_audio(path)
        idle = self.avatar.idle_motion
        self._spoken = motion_for_audio(self.avatar.driver, samples, idle.fps, idle)
        kind = mimetypes.guess_type(name)[0] or "audio/wav"
        data = base64.b64encode(sound).decode()
        self._heard.content = f'<audio autoplay controls src="data:{kind};base64,{data}"></audio>'
        self._since = time.monotonic()

    def motion(self) -> Motion:
        """One frame: what the controls say, or the motion that plays."""
        controls = self._controls
        playing = self.avatar.idle_motion if controls["play"].value else None
        elapsed = time.monotonic() - self._since
        if self._spoken is not None:
            playing = self._spoken
            if elapsed >= playing.duration:
                self._spoken = playing = None
        if playing is not None:
            frame = playing.at(np.array([elapsed * playing.fps % (len(playing) - 1 or 1)]))
            head = np.eye(4)[None] if frame.head_pose is None else frame.head_pose
        else:
            weights = [controls[name].value for name in ARKIT_52]
            gaze = [np.radians(controls[f"gaze {axis}"].value) for axis in ("yaw", "pitch")]
            head = np.eye(4)[None]
            angles = (np.radians(controls[axis].value) for axis in ("yaw", "pitch", "roll"))
            head[0, :3, :3] = yaw_pitch_roll(*(torch.tensor(float(a)) for a in angles))
            frame = Motion(
                fps=FRAMES_PER_SECOND,
                expression=np.array([weights]),
                gaze=np.array([[gaze, gaze]]),
                head_pose=head,
            )
        torso = frame.torso_pose
        if torso is None:
            state = self.avatar.state
            torso = predict_torso(head, state.torso_map, state.torso_limit, frame.fps)
        return replace(frame, head_pose=head, torso_pose=torso)

    def picture(
        self, motion: Motion, T_camera_rest: np.ndarray, width: int, height: int
    ) -> np.ndarray:
        """(height, width, 3) uint8 of one frame, seen by a camera that moved to `T_camera_rest`.

        The vertical field of view stays that of the clip. Away from the clip's own viewpoint its
        background plate would be wrong, so its mean colour is shown instead.
        """
        own = self.avatar.camera
        scale = height / own.height
        K = own.K * np.array([scale, scale, 1.0])[:, None]
        K[0, 2] += (width - own.width * scale) / 2
        moved = np.linalg.inv(self.avatar.state.T_camera_rest) @ T_camera_rest
        seen = replace(
            motion, head_pose=moved @ motion.head_pose, torso_pose=moved @ motion.torso_pose
        )
        at_home = np.abs(moved - np.eye(4)).max() < 0.03
        background = _fitted(
            self.avatar.background if at_home else None, self._plain, width, height
        )
        return next(
            iter(self.avatar.render_motion(seen, Camera(K, width, height), background=background))
        )

    @property
    def _plain(self) -> np.ndarray:
        plate = self.avatar.background
        return np.full(3, 128) if plate is None else plate.mean((0, 1))

    def _add_controls(self, gui: Any) -> dict[str, Any]:
        gui.add_markdown("**Synthetic:** a computer-generated likeness.")
        controls = {"play": gui.add_checkbox("Play the captured motion", False)}
        for axis, label in (("yaw", "Turn"), ("pitch", "Nod"), ("roll", "Tilt")):
            controls[axis] = gui.add_slider(f"{label} (degrees)", -40.0, 40.0, 0.5, 0.0)
        for axis, label in (("yaw", "Look left or right"), ("pitch", "Look up or down")):
            controls[f"gaze {axis}"] = gui.add_slider(label, -30.0, 30.0, 0.5, 0.0)
        for title, prefixes in GROUPS.items():
            with gui.add_folder(title, expand_by_default=title == "Jaw"):
                for name in (n for n in ARKIT_52 if n.startswith(prefixes)):
                    controls[name] = gui.add_slider(name, 0.0, 1.0, 0.01, 0.0)

        @controls["play"].on_update
        def _(_: Any) -> None:
            self._since = time.monotonic()

        moods = gui.add_button_group("Expression", tuple(EMOTIONS))

        @moods.on_click
        def _(_: Any) -> None:
            weights = expression_vector(EMOTIONS[moods.value])
            for name, weight in zip(ARKIT_52, weights, strict=True):
                controls[name].value = float(weight)

        reset = gui.add_button("Reset")

        @reset.on_click
        def _(_: Any) -> None:
            for control in controls.values():
                control.value = type(control.value)(0)

        return controls

    def _add_speech(self, gui: Any) -> None:
        upload = gui.add_upload_button("Speak a sound file", mime_type="audio/*")
        self._said = gui.add_markdown("")
        self._heard = gui.add_html("")

        @upload.on_upload
        def _(_: Any) -> None:
            self._said.content = "Listening …"
            try:
                self.speak(upload.value.content, upload.value.name)
                self._said.content = ""
            except UserError as error:
                self._said.content = str(error)

    def _tell_rate(self, now: float) -> None:
        self._drawn = [moment for moment in self._drawn if moment > now - 1]
        rate = str(len(self._drawn))
        if self._rate.value != rate:
            self._rate.value = rate

    def _place_camera(self, server: Any) -> None:
        """Start where the clip's camera stood; the world is the head frame at rest."""
        T_camera_rest = np.asarray(self.avatar.state.T_camera_rest, np.float64)
        T_rest_camera = rigid_inverse(torch.from_numpy(T_camera_rest)).numpy()
        own = self.avatar.camera
        distance = T_camera_rest[2, 3]
        server.scene.set_up_direction(-T_rest_camera[:3, 1])
        server.initial_camera.position = T_rest_camera[:3, 3]
        server.initial_camera.look_at = T_rest_camera[:3, 3] + distance * T_rest_camera[:3, 2]
        server.initial_camera.up = -T_rest_camera[:3, 1]
        server.initial_camera.fov = 2 * np.arctan(own.height / 2 / own.K[1, 1])

    def _loop(self) -> None:
        while self._running:
            start = time.monotonic()
            motion = self.motion()
            for client in list(self._server.get_clients().values()):
                self._show(client, motion)
            self._tell_rate(start)
            time.sleep(max(0.0, start + 1 / FRAMES_PER_SECOND - time.monotonic()))

    def _show(self, client: Any, motion: Motion) -> None:
        camera = client.camera
        try:
            T_rest_camera = np.eye(4)
            T_rest_camera[:3, :3] = _matrix(camera.wxyz)
            T_rest_camera[:3, 3] = camera.position
            height = min(camera.image_height, MAX_HEIGHT)
            width = max(1, round(height * camera.image_width / camera.image_height))
        except (AssertionError, ZeroDivisionError):
            return  # the window has just opened and has not yet told its size
        tracks = (motion.expression, motion.head_pose, motion.gaze, T_rest_camera, (width, height))
        state = [None if track is None else np.asarray(track).tobytes() for track in tracks]
        if self._shown.get(client.client_id) == state:
            return
        image = self.picture(motion, np.linalg.inv(T_rest_camera), width, height)
        client.scene.set_background_image(image, format="jpeg", jpeg_quality=90)
        self._shown[client.client_id] = state
        self._drawn.append(time.monotonic())


def _matrix(wxyz: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_quat(np.asarray(wxyz)[[1, 2, 3, 0]]).as_matrix()


def _fitted(plate: np.ndarray | None, plain: np.ndarray, width: int, height: int) -> np.ndarray:
    """`plate` scaled to `height` and centred, with the plain colour beside it."""
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = plain
    if plate is None:
        return canvas
    from PIL import Image

    wide = round(plate.shape[1] * height / plate.shape[0])
    scaled = np.asarray(Image.fromarray(plate).resize((wide, height), Image.Resampling.BILINEAR))
    start, skip = max(0, (width - wide) // 2), max(0, (wide - width) // 2)
    shown = min(width, wide)
    canvas[:, start : start + shown] = scaled[:, skip : skip + shown]
    return canvas
