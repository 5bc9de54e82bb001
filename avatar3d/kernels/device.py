"""Which device a setting means."""

import torch

from avatar3d.errors import UserError
from avatar3d.kernels import cuda, gsplat_backend

__all__ = ["pick_device"]


def pick_device(setting: str) -> torch.device:
    """The device of "cpu", "cuda", "cuda:1"... or "auto".

    "auto" is an NVIDIA GPU if all kernels run there, gsplat's included, otherwise the CPU, which
    then is the faster one.

    Raises:
        UserError: another word, or a GPU that torch does not see.
    """
    if setting == "auto":
        usable = (
            torch.cuda.is_available()
            and not cuda.unusable(torch.cuda.current_device())
            and not gsplat_backend.unusable()
        )
        return torch.device("cuda" if usable else "cpu")
    kind, _, index = setting.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
        raise UserError(f"There is no device {setting!r}; take auto, cpu or cuda.")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"torch sees no GPU for device={setting}; take auto or cpu, or see `avatar3d doctor`."
        )
    return torch.device(setting)
