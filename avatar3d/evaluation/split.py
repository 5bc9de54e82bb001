"""Which frames of a clip an avatar is tested on."""

from avatar3d.avatar import Avatar
from avatar3d.errors import UserError
from avatar3d.subject import Subject

__all__ = ["TRAIN_FRACTION", "frames_to_test", "held_out", "is_its_clip", "last_frames"]

TRAIN_FRACTION = 10 / 11


def is_its_clip(avatar: Avatar, subject: Subject) -> bool:
    """Whether the avatar was last trained on this clip; an avatar of unknown origin was."""
    source = avatar.info.get("source_sha256")
    return source is None or source == subject.info.source_sha256


def held_out(subject: Subject, train_frames: int | None) -> range:
    """Frame numbers that the avatar has not seen.

    Args:
        subject: the clip.
        train_frames: leading frames used in training, None for the field's int(N * 10 / 11).

    Raises:
        UserError: the avatar was trained on the whole clip.
    """
    total = len(subject)
    start = int(total * TRAIN_FRACTION + 1e-9) if train_frames is None else train_frames
    if start >= total:
        raise UserError(
            f"The avatar was trained on all {total} frames of {subject.folder}, so none is left to "
            "test on; train with `train_fraction=0.909091` to keep the last 1/11."
        )
    return range(start, total)


def frames_to_test(
    subject: Subject, count: int, train_frames: int | None
) -> tuple[range, list[str]]:
    """The last `count` frames, of a shorter clip those that training left; and what to say of it.

    Raises:
        UserError: training has seen some of them, or all of a shorter clip.
    """
    if count < len(subject):
        return last_frames(subject, count, train_frames), []
    frames = held_out(subject, train_frames)
    return frames, [
        f"The clip has {len(subject)} frames, so its last {count} cannot be kept for a test as the "
        f"protocol asks; the {len(frames)} that training did not see are compared instead."
    ]


def last_frames(subject: Subject, count: int, train_frames: int | None) -> range:
    """The last `count` frames.

    Raises:
        UserError: the clip has no more than that, or training has seen some of them.
    """
    total = len(subject)
    if count >= total:
        raise UserError(
            f"{subject.folder} has {total} frames, so its last {count} cannot be kept for a test; "
            "set last_frames to fewer."
        )
    if train_frames is not None and train_frames > total - count:
        fraction = int((total - count) / total * 1e6) / 1e6
        raise UserError(
            f"The avatar was trained on {train_frames - (total - count)} of the last {count} "
            f"frames of {subject.folder}; train with `train_fraction={fraction:.6f}`, or set "
            f"last_frames to {total - train_frames} or fewer."
        )
    return range(total - count, total)
