"""Pictures tracked again: what a face in a render does, judged as it would be in a recording."""

from dataclasses import replace

import numpy as np

from avatar3d.capture.fit import FaceFit, FaceShape, LandmarkModel, fit_frames
from avatar3d.capture.pose import poses_from_landmarks
from avatar3d.head import load_head
from avatar3d.subject import Tracking

__all__ = ["retracked"]


def retracked(tracking: Tracking, landmarks: np.ndarray) -> FaceFit:
    """Poses, expressions and gaze of the subject's own head, from landmarks alone.

    Args:
        tracking: of the subject: who it is, and the camera.
        landmarks: (T, 478, 2) pixels of successive pictures.
    """
    head = load_head(tracking.head_model)
    shape = FaceShape(tracking.identity, tracking.landmark_offsets)
    person = head.shaped(tracking.identity, tracking.landmark_offsets)
    model = LandmarkModel(replace(head, expression=person.expression), tracking.K)
    found = np.ones(len(landmarks), bool)
    points = np.asarray(landmarks, np.float32)
    poses = poses_from_landmarks(head, points, found, tracking.K, model.face(shape))
    return fit_frames(model, shape, points, found, poses)
