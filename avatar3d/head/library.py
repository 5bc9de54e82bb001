"""Head models by name."""

from functools import lru_cache
from pathlib import Path

from avatar3d.errors import UserError
from avatar3d.head.model import HeadModel

__all__ = ["load_head"]


def load_head(name: str = "anny") -> HeadModel:
    """A head model, kept in memory after the first call.

    Args:
        name: "anny" (the default model, built and cached at first use), "ict" (from
            `ict_facekit.npz` and `ict_mediapipe478.npz` imported as assets) or the path of an .npz:
            a saved `HeadModel` or ICT-FaceKit as arrays.

    Raises:
        UserError: an unknown name, or its data cannot be had; says what to run.
    """
    return _load(str(name))


@lru_cache(maxsize=4)
def _load(name: str) -> HeadModel:
    if name == "anny":
        from avatar3d.head.anny import load_anny

        return load_anny()
    if name == "ict":
        from avatar3d.assets import get
        from avatar3d.head.sources import ict

        return ict.from_npz(get("ict-facekit"), get("ict-mediapipe478"))
    path = Path(name)
    if path.suffix != ".npz":
        raise UserError(
            f"There is no head model named {name!r}; use anny, ict or the path of an .npz."
        )
    return _from_file(path)


def _from_file(path: Path) -> HeadModel:
    import zipfile

    if not path.is_file():
        raise UserError(f"The head model {path} does not exist; check the path.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = set(archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not an .npz file ({error}).") from error
    if "vertices.npy" in members and "parts.npy" in members:
        from avatar3d.head.sources import ict

        return ict.from_npz(path)
    return HeadModel.load(path)
