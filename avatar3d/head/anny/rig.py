"""What MakeHuman's skeleton tells: joints, and what of a vertex is head, neck or torso."""

from dataclasses import dataclass

import numpy as np

from avatar3d.head.anny.data import AnnyData

__all__ = ["Rig", "load_rig"]

# How far a neck bone follows the shoulders; the skull sits on neck03, the shoulders carry neck01.
_TORSO_SHARE = {"neck01": 0.8, "neck02": 0.45, "neck03": 0.15, "head": 0.0}


@dataclass(frozen=True)
class Rig:
    """Per vertex of the base mesh (19158,), each in [0, 1].

    Attributes:
        torso: 0 moves with the head, 1 with the shoulders.
        neck, jaw: share of the neck bones and of the jaw bone.
        arms: (2, 19158) share of the upper arms and what hangs on them, left and right.
        shoulder_joints: (2, 19158) weights of the vertices whose mean is the shoulder joint.
        eye_joints: (2, 19158) likewise for the eyes.
    """

    torso: np.ndarray
    neck: np.ndarray
    jaw: np.ndarray
    arms: np.ndarray
    shoulder_joints: np.ndarray
    eye_joints: np.ndarray


def load_rig(data: AnnyData) -> Rig:
    """Read the default rig and its skinning weights."""
    document = data.json("rigs/standard/rig.default.json")
    bones = document.get("bones", document)
    weights = data.json("rigs/standard/weights.default.json")["weights"]
    count = len(data.base.vertices)

    def ancestry(bone: str) -> list[str]:
        chain = [bone]
        while parent := bones[chain[-1]]["parent"]:
            chain.append(parent)
        return chain

    total, torso, neck, jaw = (np.zeros(count) for _ in range(4))
    arms = np.zeros((2, count))
    for bone, pairs in weights.items():
        if bone not in bones or not pairs:
            continue
        vertices = np.array([vertex for vertex, _ in pairs], int)
        value = np.array([weight for _, weight in pairs], float)
        chain = ancestry(bone)
        share = next((_TORSO_SHARE[b] for b in chain if b in _TORSO_SHARE), 1.0)
        np.add.at(total, vertices, value)
        np.add.at(torso, vertices, value * share)
        if chain[0].startswith("neck"):
            np.add.at(neck, vertices, value)
        if "jaw" in chain:
            np.add.at(jaw, vertices, value)
        for side, arm in enumerate(("upperarm01.L", "upperarm01.R")):
            if arm in chain:
                np.add.at(arms[side], vertices, value)
    total = np.maximum(total, 1e-9)
    return Rig(
        torso=torso / total,
        neck=neck / total,
        jaw=jaw / total,
        arms=arms / total,
        shoulder_joints=_joints(data, bones, ("upperarm01.L", "upperarm01.R")),
        eye_joints=_joints(data, bones, ("eye.L", "eye.R")),
    )


def _joints(data: AnnyData, bones: dict, names: tuple[str, str]) -> np.ndarray:
    """A joint is the mean of the vertices that its bone's head names."""
    result = np.zeros((2, len(data.base.vertices)))
    for side, name in enumerate(names):
        head = bones[name]["head"]
        if head["strategy"] == "CUBE":
            vertices = data.base.group(head["cube_name"])
        elif head["strategy"] == "VERTEX":
            vertices = np.array([head["vertex_index"]])
        else:
            vertices = np.array(head["vertex_indices"])
        result[side, vertices] = 1 / len(vertices)
    return result
