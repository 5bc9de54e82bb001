"""A few frames of a subject with the tracked mesh rasterised into each."""

from copy import copy
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, minimum_filter

from avatar3d.head.model import PARTS, ShapedHead
from avatar3d.kernels import rasterize_mesh
from avatar3d.subject import PARSING_LABELS, Subject, Tracking

__all__ = ["Shown", "Views"]

_COUNT = 8
_DEPTH_SLACK = 0.0015  # metres; less than the thickness of a lip
_NOT_SKIN = [PARSING_LABELS.index(name) for name in ("background", "clothes")]
_EDGE = 5  # pixels around a pixel that must be person
_DEEP = 0.01  # of the height, that blur carries the background into the person
_FACING = 0.3  # cosine between normal and view from which a point counts as seen


@dataclass(frozen=True)
class Shown:
    """What some frames show of n points of the surface.

    Attributes:
        color: (n, 3) mean over the frames that see a point; seen: (n,) bool, whether any does, and
            from not so far aside, nor so near the outline, that some of it may be background.
        facing: (n,) cosine between normal and view in the frame that the point faces best, -1 if
            it shows in none.
        label: (n,) uint8 index into `PARSING_LABELS` where it was seen best, 0 if it was not.
    """

    color: np.ndarray
    seen: np.ndarray
    facing: np.ndarray
    label: np.ndarray

    @property
    def hairy(self) -> np.ndarray:
        """(n,) bool: seen as hair."""
        return self.label == PARSING_LABELS.index("hair")

    @property
    def bare(self) -> np.ndarray:
        """(n,) bool: seen, and not covered by a collar."""
        return self.seen & ~np.isin(self.label, _NOT_SKIN)


class Views:
    """Evenly spread frames: images, mattes, and the visible triangle and depth per pixel.

    Attributes:
        indices: (8,) frame numbers; images: (H, W, 3) in [0, 1]; mattes: (H, W) uint8;
        parsing: (H, W) uint8 indices into `PARSING_LABELS`.
        vertices: (V, 3) posed, camera frame; face: (H, W) visible triangle or -1;
        depth: (H, W) metres, inf where empty. One list entry per view.
    """

    def __init__(
        self, subject: Subject, tracking: Tracking, head: ShapedHead, frames: np.ndarray
    ) -> None:
        self.tracking, self.camera, self.model = tracking, tracking.camera, head.model
        self.indices = frames[np.linspace(0, len(frames) - 1, _COUNT).astype(int)]
        self.images = [subject.frame(i).astype(np.float32) / 255 for i in self.indices]
        self.mattes = [subject.matte(i) for i in self.indices]
        self.parsing = [subject.parsing(i) for i in self.indices]
        self._show(head)

    def of(self, head: ShapedHead) -> "Views":
        """The same frames with another surface of the same head model in them."""
        other = copy(self)
        other._show(head)
        return other

    def _show(self, head: ShapedHead) -> None:
        self.vertices, self.face, self.depth = [], [], []
        lashes = self.model.part == PARTS.index("lashes")
        solid = np.flatnonzero(~lashes[self.model.faces].any(1))
        for index in self.indices:
            vertices = self._posed(head, index)
            points = np.concatenate([self.camera.project(vertices), vertices[:, 2:]], 1)
            face, _, depth = rasterize_mesh(
                points.astype(np.float32),
                self.model.faces[solid],
                self.camera.width,
                self.camera.height,
            )
            self.vertices.append(vertices)
            self.face.append(np.where(face >= 0, solid[face], -1))
            self.depth.append(depth)

    def look(self, faces: np.ndarray, bary: np.ndarray) -> Shown:
        """What the views show of surface points.

        Only what is well inside the person's outline gives colours: those taken at it may be the
        background's, and would show as soon as the head turns.

        Args:
            faces: (n,) triangles; bary: (n, 3).
        """
        total, count = np.zeros((len(faces), 3)), np.zeros(len(faces))
        facing, best = np.full(len(faces), -1.0), np.full(len(faces), -1.0)
        label = np.zeros(len(faces), np.uint8)
        triangles = self.model.faces[faces]
        for image, matte, labels, depth, vertices in zip(
            self.images, self.mattes, self.parsing, self.depth, self.vertices, strict=True
        ):
            points = (vertices[triangles] * bary[:, :, None]).sum(1)
            pixel = np.floor(self.camera.project(points)).astype(int)
            limit = [self.camera.width - 1, self.camera.height - 1]
            inside = ((pixel >= 0) & (pixel <= limit)).all(1)
            columns, rows = pixel.clip(0, limit).T
            shown = inside & (points[:, 2] < depth[rows, columns] + _DEPTH_SLACK)
            shown &= minimum_filter(matte, _EDGE)[rows, columns] > 200
            corners = vertices[triangles]
            normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            length = np.linalg.norm(normal, axis=1) * np.linalg.norm(points, axis=1)
            cosine = -(normal * points).sum(1) / np.maximum(length, 1e-12)
            shown &= cosine > 0
            facing = np.maximum(facing, np.where(shown, cosine, -1))
            deep = minimum_filter(matte, 2 * round(_DEEP * self.camera.height) + 1) > 200
            seen = shown & deep[rows, columns] & (cosine > _FACING)
            total[seen] += image[rows[seen], columns[seen]]
            count[seen] += 1
            better = seen & (cosine > best)
            best[better], label[better] = cosine[better], labels[rows, columns][better]
        return Shown(total / np.maximum(count, 1)[:, None], count > 0, facing, label)

    def rays(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Camera-frame points (n, 3) at unit depth through the centres of pixels."""
        uv1 = np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))], 1)
        return uv1 @ np.linalg.inv(self.camera.K).T

    def inner_pixels(self, view: int) -> np.ndarray:
        """(2, H, W) row and column of the pixel next to each that is person all around."""
        person = minimum_filter(self.mattes[view], _EDGE) > 200
        if not person.any():
            return np.indices(person.shape)
        return distance_transform_edt(~person, return_distances=False, return_indices=True)

    def chin_row(self, view: int) -> float:
        """Image row of the chin landmark."""
        return float(self.tracking.landmarks_fit[self.indices[view], 152, 1])

    def nose_row(self, view: int) -> float:
        """Image row of the landmark below the nose, where ears end."""
        return float(self.tracking.landmarks_fit[self.indices[view], 2, 1])

    def triangle_torso_weight(self, view: int) -> np.ndarray:
        """(H, W) skinning weight of the visible triangle; 1 where there is none."""
        per_face = self.model.torso_weight[self.model.faces].mean(1)
        face = self.face[view]
        return np.where(face >= 0, per_face[face], 1.0)

    def _posed(self, head: ShapedHead, index: int) -> np.ndarray:
        vertices = head.posed(self.tracking.weights[index], self.tracking.gaze[index])
        by_head, by_torso = (
            vertices @ T[:3, :3].T + T[:3, 3]
            for T in (self.tracking.T_camera_head[index], self.tracking.T_camera_torso[index])
        )
        weight = self.model.torso_weight[:, None]
        return by_head * (1 - weight) + by_torso * weight
