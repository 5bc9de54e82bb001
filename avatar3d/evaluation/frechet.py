"""FID: how far the features of two sets of pictures are apart (Heusel et al. 2017).

The network is the user's: an ONNX file that takes (N, 3, 299, 299) float32 RGB in [0, 1] and gives
(N, D), such as the Inception of pytorch-fid exported with torch.onnx. Between a few hundred frames
of one person FID is noisy and biased, so it only compares systems on the same frames.
"""

from pathlib import Path

import numpy as np

from avatar3d.errors import UserError

__all__ = ["Features", "frechet_distance"]

_SIDE = 299


class Features:
    """Features (D,) of pictures by an ONNX network, with one input and one output.

    Raises:
        UserError: it cannot be read, or is not of the form above.
    """

    def __init__(self, path: str | Path, side: int = _SIDE) -> None:
        import onnxruntime

        self.path, self._side = Path(path), side
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), providers=["CPUExecutionProvider"]
            )
            (entry,) = self._session.get_inputs()
            self._name = entry.name
            self.dimensions = len(self(np.zeros((side, side, 3), np.float32)))
        except Exception as error:  # whatever the runtime says of a damaged file
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"{path} is not an ONNX network from (N, 3, {side}, {side}) to (N, D) "
                f"({reason[:120]}); export it again, or leave the setting empty."
            ) from error

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Of a picture (H, W, 3) in [0, 1]; resized, bilinear."""
        import torch

        picture = torch.from_numpy(np.asarray(image, np.float32)).permute(2, 0, 1)[None]
        if picture.shape[2:] != (self._side, self._side):
            picture = torch.nn.functional.interpolate(
                picture, (self._side, self._side), mode="bilinear", align_corners=False
            )
        found = self._session.run(None, {self._name: picture.numpy()})[0]
        return np.asarray(found, np.float64).reshape(-1)


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Between Gaussians with the means and covariances of (N, D) and (M, D).

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)). With the centred rows A and B the trace of the root
    is the sum of the singular values of A B^T (nuclear norm), which needs no root of a singular
    matrix where there are fewer rows than features.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    offset = first.mean(0) - second.mean(0)
    a, b = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (first, second))
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(offset @ offset + (a * a).sum() + (b * b).sum() - 2 * root)
