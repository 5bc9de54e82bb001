"""A small random avatar over a small made-up head, so that these tests need no assets."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from avatar3d.avatar import NerfAvatar, NerfState, SplatState
from avatar3d.avatar.nerf.build import FieldSize, initial_field
from avatar3d.cli import main
from avatar3d.head import ARKIT_52, HeadModel
from avatar3d.head.model import PARTS
from avatar3d.kernels import HashGrid, Occupancy
from avatar3d.motion import Motion

# Python processes that tests start must import the installed package, as pytest does, and not the
# source tree they happen to be started in, which has no native kernels.
os.environ.setdefault("PYTHONSAFEPATH", "1")


@pytest.fixture(scope="session", autouse=True)
def signing_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A signing key of the tests, so that they leave none in the person's settings."""
    before = os.environ.get("AVATAR3D_SIGNING")
    os.environ["AVATAR3D_SIGNING"] = str(tmp_path_factory.mktemp("keys") / "signing")
    yield
    if before is None:
        del os.environ["AVATAR3D_SIGNING"]
    else:
        os.environ["AVATAR3D_SIGNING"] = before


@pytest.fixture(scope="session")
def small_head() -> HeadModel:
    """A bumpy sphere with random displacement fields: no face, but every field of a HeadModel."""
    import trimesh

    rng = np.random.default_rng(3)
    sphere = trimesh.creation.icosphere(subdivisions=2, radius=0.1)
    vertices = np.asarray(sphere.vertices, np.float32)
    count = len(vertices)
    part = np.where(vertices[:, 1] < -0.06, PARTS.index("neck"), PARTS.index("face"))
    part[vertices[:, 2] > 0.09] = PARTS.index("eye_left")
    part[vertices[:, 2] < -0.09] = PARTS.index("eye_right")
    rows = len(ARKIT_52) + 2
    return HeadModel(
        name="sphere",
        template=vertices,
        faces=np.asarray(sphere.faces, np.int32),
        identity=rng.normal(0, 0.002, (4, count, 3)).astype(np.float32),
        expression=rng.normal(0, 0.003, (rows, count, 3)).astype(np.float32),
        expression_names=(*ARKIT_52, "residual0", "residual1"),
        part=part.astype(np.uint8),
        torso_weight=np.clip(-vertices[:, 1] / 0.1, 0, 1).astype(np.float32),
        eye_centers=np.array([[0, 0, 0.08], [0, 0, -0.08]], np.float32),
        eye_centers_identity=np.zeros((4, 2, 3), np.float32),
        uv=rng.random((count, 2)).astype(np.float32),
        uv_faces=np.asarray(sphere.faces, np.int32),
        landmark_faces=rng.integers(0, len(sphere.faces), 478).astype(np.int32),
        landmark_bary=rng.dirichlet(np.ones(3), 478).astype(np.float32),
        landmark_sigma=np.full(478, 0.002, np.float32),
    )


@pytest.fixture
def small_state(small_head: HeadModel) -> SplatState:
    """300 Gaussians on the head, 40 on the torso, with a random basis."""
    rng = np.random.default_rng(5)
    head = small_head
    rows, bound, free, size = len(head.expression), 300, 40, 4
    count = bound + free
    eye = np.zeros(len(head.template), np.uint8)
    eye[head.part == PARTS.index("eye_left")] = 1
    eye[head.part == PARTS.index("eye_right")] = 2
    rest = np.diag([1.0, -1.0, -1.0, 1.0])
    rest[2, 3] = 0.6
    face = np.r_[rng.integers(0, len(head.faces), bound), np.full(free, -1)]
    position = rng.normal(0, 0.002, (count, 3))
    position[bound:] = rng.normal(0, 0.03, (free, 3)) + [0, -0.12, 0]
    return SplatState(
        vertices=head.template.copy(),
        expression=head.expression.copy(),
        faces=head.faces.copy(),
        torso_weight=head.torso_weight.copy(),
        eye=eye,
        eye_centers=head.eye_centers.copy(),
        face=face.astype(np.int32),
        bary=rng.dirichlet(np.ones(3), count).astype(np.float32),
        part=rng.integers(0, 5, count).astype(np.uint8),
        position=position.astype(np.float32),
        quat=rng.normal(size=(count, 4)).astype(np.float32),
        log_scale=rng.normal(-5.5, 0.3, (count, 3)).astype(np.float32),
        opacity=rng.normal(1, 1, count).astype(np.float32),
        color=rng.random((count, 3)).astype(np.float32),
        basis=rng.normal(0, 0.01, (bound, 10, size)).astype(np.float32),
        map=rng.normal(0, 1, (size, rows + 4)).astype(np.float32),
        mean=rng.random(rows + 4).astype(np.float32) * 0.1,
        bias=rng.normal(0, 0.1, size).astype(np.float32),
        limit=np.array(3.0, np.float32),
        T_camera_rest=rest,
        K_matrix=np.array([[200.0, 0, 48], [0, 200, 40], [0, 0, 1]]),
        size=np.array([96, 80]),
        torso_map=rng.normal(0, 0.1, (12, 6)),
        torso_limit=np.full(6, 0.1),
        signal_min=np.full(rows + 4, -0.15, np.float32),
        signal_max=np.full(rows + 4, 0.9, np.float32),
    )


@pytest.fixture
def lpips_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[type[torch.nn.Module]], Path]:
    """Install a network as the package `lpips`; returns where its weights would be, not made."""

    def install(network: type[torch.nn.Module]) -> Path:
        module = ModuleType("lpips")
        module.__dict__["LPIPS"] = network
        module.__spec__ = ModuleSpec("lpips", None)
        monkeypatch.setitem(sys.modules, "lpips", module)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        return tmp_path / "hub" / "checkpoints"

    return install


@pytest.fixture
def run_here(tmp_path, monkeypatch, capfd) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`avatar3d ARGUMENTS...` inside this process, which is quicker than a new one."""

    def command(*arguments: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["avatar3d", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capfd.readouterr()
        return subprocess.CompletedProcess(sys.argv, stopped.value.code, said.out, said.err)

    return command


@pytest.fixture
def small_field(small_state: SplatState) -> NerfState:
    """A field around the small head that knows nothing yet, and has heard nothing."""
    frames, rows = 24, len(small_state.expression)
    rng = np.random.default_rng(11)
    weights = rng.random((frames, rows)).astype(np.float32) * 0.5
    tracking: Any = MagicMock(weights=weights, gaze=rng.normal(0, 0.1, (frames, 2, 2)))
    tracking.__len__.return_value = frames
    size = FieldSize(
        grid=HashGrid(levels=4, features=2, log2_size=10, base=4, finest=32),
        hidden=16,
        code=4,
        attention=8,
        cells=32,
        step=0.005,
        spacing=(0.03, 0.02),
    )
    return initial_field(small_state, tracking, np.arange(frames), {}, size, rng)


@pytest.fixture
def ball(small_field: NerfState) -> NerfAvatar:
    """An opaque, light blue ball of 6 cm around the origin of the head frame, seen from 0.6 m."""
    cells = 64
    box = torch.tensor([[-0.1, -0.1, -0.1], [0.1, 0.1, 0.1]])
    small_field.box = box.numpy()
    small_field.fine_box = box.numpy() * 0.9
    small_field.skin = np.zeros(int(np.prod(small_field.lattice_shape())), np.float32)
    small_field.ray_step = np.array(0.001, np.float32)
    small_field.layer_2[1:] = 0
    small_field.bias_2[:] = 20.0, -1.0, 0.5, 2.0
    occupancy = Occupancy.full(box, cells)
    centers = occupancy.points(torch.arange(cells**3))
    occupancy.update((centers.norm(dim=1) < 0.06).float(), threshold=0.5)
    small_field.occupancy = occupancy.bits.numpy()
    small_field.validate()
    still = Motion(25, expression=np.zeros((4, 52), np.float32))
    return NerfAvatar(small_field, None, still, None)
