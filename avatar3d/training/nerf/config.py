"""What can be set about the training of a NeRF avatar."""

from dataclasses import dataclass, fields

from avatar3d.avatar.nerf.build import FieldSize
from avatar3d.kernels import HashGrid
from avatar3d.training.config import RunConfig, TrainingConfig

__all__ = ["NerfConfig"]


@dataclass(frozen=True)
class NerfConfig(RunConfig):
    """Options of `avatar3d train avatar=nerf`."""

    iterations: int = 10_000
    """Iterations of the field's training, at most."""
    patience: int = 0
    """Training ends early once frames held back have not gained for so many looks, one every 100
    iterations; 0 holds no frames back."""
    random_background: float = 0.5
    """Fraction of frames on a random flat background, which keeps the alpha honest."""
    checkpoint_seconds: float = 60.0
    """A checkpoint is written at least this often."""
    resolution: int = 256
    """Pixels of the longer side of the frames that the field learns from, at most."""
    rays: int = 2048
    """Rays of an iteration."""
    frames_together: int = 2
    """Frames that the rays of an iteration are from."""
    patches: float = 0.5
    """Fraction of iterations, once `patches_from` of them are done, on a square of a frame, judged
    with SSIM."""
    patches_from: float = 0.4
    """Fraction of iterations before there are any."""
    levels: int = 12
    """Grids of growing resolution of the field's features."""
    log2_size: int = 17
    """Logarithm of the largest number of entries of each."""
    finest: int = 512
    """Nodes a side of the finest."""
    hidden: int = 64
    """Units in a layer of the network."""
    code: int = 12
    """Numbers of the code that each part of the face hears."""
    cells: int = 128
    """Cells a side of the occupancy; a multiple of 4."""
    step: float = 0.003
    """Distance of samples along a ray, metres."""
    attention: int = 48
    """Nodes a side of the gates."""
    warp_spacing: float = 0.012
    """Distance between the nodes of the warp, metres."""
    face_spacing: float = 0.004
    """The same around the face."""
    table_rate: float = 0.01
    """Learning rate of the features."""
    network_rate: float = 0.002
    """Learning rate of the network and the codes."""
    attention_rate: float = 0.003
    """Learning rate of the gates."""
    pose_rate: float = 0.0
    """Learning rate of every frame's pose, radians and metres; 0 trusts photometric tracking."""
    gate_weight: float = 0.0003
    """Weight of open gates: what need not hear of the mouth does not."""
    distortion_weight: float = 0.3
    """Weight of what is spread out along a ray, per metre."""
    appearance_weight: float = 0.001
    """Weight of the squares of the frames' appearance."""
    sound: float = 0.25
    """Fraction of iterations whose mouth is driven by sound, where there is speech."""
    agreement_weight: float = 0.01
    """Weight of the difference between the mouth's codes from sound and from expression."""
    sides: float = 0.1
    """Fraction of iterations on pictures of the quick avatar from sides that were not filmed."""

    def size(self) -> FieldSize:
        """How fine the field is."""
        return FieldSize(
            grid=HashGrid(self.levels, 2, self.log2_size, 16, self.finest),
            hidden=self.hidden,
            code=self.code,
            attention=self.attention,
            cells=self.cells,
            step=self.step,
            spacing=(self.warp_spacing, self.face_spacing),
        )

    def quick(self) -> TrainingConfig:
        """Of the quick avatar, and of photometric tracking with it."""
        shared = {f.name: getattr(self, f.name) for f in fields(RunConfig)}
        changed = {"patience": 0, "random_background": 0.25, "seconds": 0.5 * self.seconds}
        return TrainingConfig(**shared | changed)
