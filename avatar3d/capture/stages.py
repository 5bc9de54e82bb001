"""The stages of capture, in order. Each reads and writes files of the workspace only."""

import json

import numpy as np

from avatar3d.capture.config import CaptureConfig
from avatar3d.capture.fit import FaceFit, FaceShape, LandmarkModel, fit_frames, fit_shape
from avatar3d.capture.framing import MIN_FRAMES, Framing, inspect_clip, no_face
from avatar3d.capture.landmarks import choose_detector, choose_face
from avatar3d.capture.matte import Segmenter, refine_matte
from avatar3d.capture.parallel import Spares, parallel_map, silenced
from avatar3d.capture.parsing import learn_colors, parse_frame
from avatar3d.capture.plate import background_plate
from avatar3d.capture.pose import mean_pose, poses_from_landmarks
from avatar3d.capture.preview import contact_sheet
from avatar3d.capture.report import advice, quality_numbers, quality_page
from avatar3d.capture.torso import (
    TorsoTracker,
    measure_all,
    pivot_pixel,
    smooth_motion,
    torso_poses,
    torso_region,
)
from avatar3d.capture.workspace import CACHE, RejectedClip, Stage, Workspace
from avatar3d.head import ShapedHead
from avatar3d.head.model import PARTS
from avatar3d.io.atomic import atomic_path, atomic_write
from avatar3d.io.images import read_image, write_image
from avatar3d.io.video import read_frames
from avatar3d.progress import track
from avatar3d.subject import PARSING_LABELS, Tracking

__all__ = ["STAGES", "landmark_models"]

_LANDMARK_CHUNK = 512
_OVERLAP = 16
_COLOR_FRAMES = 24
_PLATE_FRAMES = 90


def landmark_models(config: CaptureConfig) -> str:
    """Name of the landmark models in use; part of what the stages depend on."""
    return choose_detector(config).name


def decode(workspace: Workspace) -> None:
    """frames/: constant rate, cropped, resized."""
    import cv2

    config, source = workspace.config, workspace.source
    framing = inspect_clip(source, config)
    workspace.path("frames").mkdir(parents=True, exist_ok=True)
    left, top, width, height = framing.crop
    size = (framing.width, framing.height)

    def store(item: tuple[int, np.ndarray]) -> None:
        index, image = item
        path = workspace.frame_path(index)
        if path.is_file():
            return
        image = image[top : top + height, left : left + width]
        if (width, height) != size:
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        write_image(path, np.ascontiguousarray(image))

    images = enumerate(read_frames(source, framing.fps, config.start, config.duration))
    expected = round((config.duration or framing.info.duration - config.start) * framing.fps)
    stored = parallel_map(store, images, workspace.workers)
    count = sum(1 for _ in track(stored, "Reading the video", expected))
    _remember(workspace, framing, count)


def _remember(workspace: Workspace, framing: Framing, count: int) -> None:
    facts = workspace.state.facts
    facts.update(
        fps=framing.fps,
        frames=count,
        width=framing.width,
        height=framing.height,
        crop=framing.crop,
        face=framing.face,
        faces=framing.faces,
    )
    if framing.info.hdr:
        workspace.warn("decode", "The video is HDR; its colours were reduced without tone mapping.")
    if framing.info.variable_rate:
        workspace.warn(
            "decode",
            "The frames of the video are unevenly spaced; they were resampled to "
            f"{framing.fps:.2f} per second.",
        )
    if framing.faces > 1:
        workspace.warn("decode", "Several faces were seen; the main one was followed.")


def landmarks(workspace: Workspace) -> None:
    """.capture/landmarks.npz: points (T, 478, 3), found (T,), scores (T, 52) or empty."""
    choice = choose_detector(workspace.config)
    several = 3 if workspace.state.facts["faces"] > 1 else 1
    blank = np.zeros((workspace.height, workspace.width, 3), np.uint8)
    with silenced():
        detectors = Spares(lambda: choice.make(several), workspace.workers)
        for _ in range(workspace.workers):
            with detectors.borrow() as detector:
                detector.detect(blank)
    expected = np.array(workspace.state.facts["face"])
    frames = workspace.frames
    starts = range(0, frames, _LANDMARK_CHUNK)

    def detect(index: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        image = workspace.frame(index)
        with detectors.borrow() as detector:
            face = choose_face(detector.detect(image), expected)
        return (face.points, face.scores) if face else (None, None)

    todo = [s for s in starts if not workspace.has_arrays(f"landmarks/{s:06d}")]
    indices = [i for s in todo for i in range(s, min(s + _LANDMARK_CHUNK, frames))]
    results = iter(
        track(parallel_map(detect, indices, workspace.workers), "Finding the face", len(indices))
    )
    for start in todo:
        rows = [next(results) for _ in range(start, min(start + _LANDMARK_CHUNK, frames))]
        workspace.save_arrays(f"landmarks/{start:06d}", **_landmark_arrays(rows))
    for _ in results:  # lets the progress line end
        pass
    parts = [workspace.load_arrays(f"landmarks/{start:06d}") for start in starts]
    merged = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    usable = int(merged["found"].sum())
    if usable == 0:
        raise RejectedClip(no_face(workspace.source))
    if usable < MIN_FRAMES:
        raise RejectedClip(
            f"A face was found in only {usable} of {frames} frames of {workspace.source}; capture "
            f"needs at least {MIN_FRAMES}: use a clip that shows one person's face throughout."
        )
    if usable < 0.9 * frames:
        workspace.warn("landmarks", f"The face was found in only {usable} of {frames} frames.")
    workspace.save_arrays("landmarks", **merged)


def _landmark_arrays(
    rows: list[tuple[np.ndarray | None, np.ndarray | None]],
) -> dict[str, np.ndarray]:
    count = len(rows)
    points = np.zeros((count, 478, 3), np.float32)
    scores = np.full((count, 52), -1, np.float32)
    found = np.zeros(count, bool)
    for index, (face, score) in enumerate(rows):
        if face is not None:
            points[index], found[index] = face, True
        if score is not None:
            scores[index] = score
    return {"points": points, "scores": scores, "found": found}


def matte(workspace: Workspace) -> None:
    """mattes/: 8-bit alpha."""
    workspace.path("mattes").mkdir(parents=True, exist_ok=True)
    with silenced():
        segmenters = Spares(Segmenter, workspace.workers)

    def work(index: int) -> None:
        path = workspace.matte_path(index)
        if not path.is_file():
            image = workspace.frame(index)
            with segmenters.borrow() as segment:
                probability = segment(image)
            write_image(path, refine_matte(image, probability))

    done = parallel_map(work, range(workspace.frames), workspace.workers)
    for _ in track(done, "Cutting out the person", workspace.frames):
        pass


def fit(workspace: Workspace) -> None:
    """.capture/fit.npz: the face shape, and pose, expression and gaze of every frame."""
    import torch

    config, frames, head = workspace.config, workspace.frames, workspace.head
    data = workspace.load_arrays("landmarks")
    points, found = data["points"][..., :2], data["found"]
    model = LandmarkModel(head, workspace.K)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the frames are fitted on several threads of our own instead
    try:
        if not workspace.has_arrays("fit/shape"):
            usable = np.flatnonzero(found)
            chosen = usable[_spread(len(usable), config.identity_frames)]
            poses = poses_from_landmarks(head, points[chosen], found[chosen], workspace.K)
            shape = fit_shape(model, points[chosen], poses, config.iterations)
            workspace.save_arrays("fit/shape", identity=shape.identity, offsets=shape.offsets)
        shape = FaceShape(**workspace.load_arrays("fit/shape"))
        poses = poses_from_landmarks(head, points, found, workspace.K, model.face(shape))

        def work(start: int) -> None:
            low = max(0, start - _OVERLAP)
            high = min(frames, start + config.chunk + _OVERLAP)
            part = slice(low, high)
            if not found[part].any():
                result = _resting(poses[part], model)
            else:
                result = fit_frames(
                    model, shape, points[part], found[part], poses[part], config.iterations
                )
            workspace.save_arrays(f"fit/{start:06d}", **result.__dict__)

        starts = list(range(0, frames, config.chunk))
        todo = [start for start in starts if not workspace.has_arrays(f"fit/{start:06d}")]
        for _ in track(parallel_map(work, todo, workspace.workers), "Fitting the head", len(todo)):
            pass
    finally:
        torch.set_num_threads(threads)
    parts = [FaceFit(**workspace.load_arrays(f"fit/{start:06d}")) for start in starts]
    merged = _joined(parts, starts, config.chunk, frames)
    workspace.save_arrays("fit", **shape.__dict__, **merged.__dict__)


def _spread(count: int, wanted: int) -> np.ndarray:
    """Up to `wanted` indices over `count`, evenly."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int))


def _resting(poses: np.ndarray, model: LandmarkModel) -> FaceFit:
    count, rows = len(poses), len(model.head.expression)
    return FaceFit(
        poses,
        np.zeros((count, rows), np.float32),
        np.zeros((count, 2, 2), np.float32),
        np.zeros((count, 478, 2), np.float32),
    )


def _joined(parts: list[FaceFit], starts: list[int], chunk: int, frames: int) -> FaceFit:
    """Chunks cross-faded over their overlap, so that no seam shows in time."""
    tracks = {}
    for name in ("poses", "weights", "gaze", "points"):
        first = getattr(parts[0], name)
        total = np.zeros((frames, *first.shape[1:]), np.float64)
        amount = np.zeros(frames)
        for part, start in zip(parts, starts, strict=True):
            value = getattr(part, name)
            low = max(0, start - _OVERLAP)
            index = np.arange(low, low + len(value))
            rise = (index - low + 0.5) / (2 * _OVERLAP) if start else np.ones(len(index))
            last = start + chunk + _OVERLAP
            fall = (last - index - 0.5) / (2 * _OVERLAP) if last < frames + _OVERLAP else 1.0
            weight = np.clip(np.minimum(rise, fall), 1e-3, 1)
            total[index] += weight.reshape(-1, *[1] * (value.ndim - 1)) * value
            amount[index] += weight
        tracks[name] = total / amount.reshape(-1, *[1] * (total.ndim - 1))
    u, _, vt = np.linalg.svd(tracks["poses"][:, :3, :3])
    tracks["poses"][:, :3, :3] = u @ vt
    for name in ("weights", "gaze", "points"):
        tracks[name] = tracks[name].astype(np.float32)
    return FaceFit(**tracks)


def torso(workspace: Workspace) -> None:
    """tracking.npz: everything known about the geometry, the shoulders included."""
    data, fitted = workspace.load_arrays("landmarks"), workspace.load_arrays("fit")
    found, points = data["found"], data["points"][..., :2]
    confidence = _confidence(points, fitted["points"], found)
    valid = found & (confidence > 0)
    rest = mean_pose(fitted["poses"][valid] if valid.any() else fitted["poses"])
    nearest = np.where(
        valid, np.linalg.norm(fitted["poses"][:, :3] - rest[:3], axis=(1, 2)), np.inf
    )
    reference = int(nearest.argmin())
    alpha = workspace.matte(reference)
    clothes = workspace.parsing(reference) == PARSING_LABELS.index("clothes")
    tracker = TorsoTracker(
        workspace.frame(reference),
        alpha,
        torso_region(alpha, points[reference], clothes),
        pivot_pixel(rest, workspace.K),
    )
    pairs = parallel_map(
        lambda index: (workspace.frame(index), workspace.matte(index)),
        range(workspace.frames),
        workspace.workers,
    )
    motion = measure_all(tracker, track(pairs, "Following the shoulders", workspace.frames))
    head = fitted["poses"][:, :3, 3]
    pixels = head[:, :2] / head[:, 2:] * workspace.K[0, 0]
    smooth, share = smooth_motion(
        motion, pixels - pixels[valid].mean(0), workspace.fps, tracker.unit
    )
    if share.mean() < 0.5:
        workspace.warn(
            "torso",
            "The shoulders show too little to follow; where unsure, they move a little with the "
            "head.",
        )
    rows = fitted["weights"]
    Tracking(
        head_model=workspace.head.name,
        head_model_fingerprint=workspace.head.fingerprint,
        K=workspace.K,
        size=np.array([workspace.width, workspace.height]),
        identity=fitted["identity"],
        landmark_offsets=fitted["offsets"],
        T_camera_rest=rest,
        T_camera_head=fitted["poses"],
        T_camera_torso=torso_poses(smooth, rest, workspace.K),
        expression=rows[:, :52],
        residual=rows[:, 52:],
        gaze=fitted["gaze"],
        landmarks=points,
        landmarks_fit=fitted["points"],
        confidence=confidence,
        valid=valid,
    ).save(workspace.path("tracking.npz"))
    workspace.save_arrays("torso", confidence=share, values=smooth.values, raw=motion.values)


def _confidence(points: np.ndarray, fitted: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(T,) 1 at the clip's usual fit error, 0 where it is four times as large or no face."""
    error = np.linalg.norm(points - fitted, axis=-1).mean(1)
    usual = np.median(error[found])
    result = np.clip((4 * usual - error) / (2 * usual + 1e-9), 0, 1)
    return np.where(found, result, 0.0).astype(np.float32)


def parsing(workspace: Workspace) -> None:
    """parsing/: label images."""
    workspace.path("parsing").mkdir(parents=True, exist_ok=True)
    data, fitted = workspace.load_arrays("landmarks"), workspace.load_arrays("fit")
    points, found = data["points"][..., :2], data["found"]
    usable = np.flatnonzero(found)
    chosen = usable[_spread(len(usable), _COLOR_FRAMES)]
    colors = learn_colors((workspace.frame(i), workspace.matte(i), points[i]) for i in chosen)
    shaped = workspace.head.shaped(fitted["identity"], fitted["offsets"])
    size = workspace.width, workspace.height

    def work(index: int) -> None:
        path = workspace.parsing_path(index)
        if path.is_file():
            return
        labels = np.zeros((workspace.height, workspace.width), np.uint8)
        if found[index]:
            ears = ear_mask(shaped, fitted["poses"][index], workspace.K, *size)
            image, alpha = workspace.frame(index), workspace.matte(index)
            labels = parse_frame(image, alpha, points[index], colors, ears)
        write_image(path, labels)

    done = parallel_map(work, range(workspace.frames), workspace.workers)
    for _ in track(done, "Labelling the picture", workspace.frames):
        pass


def ear_mask(
    shaped: ShapedHead, pose: np.ndarray, K: np.ndarray, width: int, height: int
) -> np.ndarray:
    """(H, W) bool: pixels where the fitted head shows an ear; rendered at a third of the size."""
    import cv2

    from avatar3d.kernels import rasterize_mesh

    model = shaped.model
    camera = shaped.vertices @ pose[:3, :3].T + pose[:3, 3]
    pixels = camera @ K.T
    points = np.column_stack([pixels[:, :2] / pixels[:, 2:] / 3, camera[:, 2]]).astype(np.float32)
    size = (-(-width // 3), -(-height // 3))
    face, _, _ = rasterize_mesh(points, model.faces, *size)
    is_ear = (model.part[model.faces] == PARTS.index("ears")).sum(1) >= 2
    seen = (is_ear[face] & (face >= 0)).astype(np.uint8)
    full = cv2.resize(seen, (size[0] * 3, size[1] * 3), interpolation=cv2.INTER_NEAREST)
    return full[:height, :width] > 0


def plate(workspace: Workspace) -> None:
    """background.png."""
    samples = _spread(workspace.frames, _PLATE_FRAMES)
    pairs = parallel_map(
        lambda i: (workspace.frame(i), workspace.matte(i)), samples.tolist(), workspace.workers
    )
    image, seen = background_plate(pairs)
    workspace.state.facts["background_seen"] = float(seen.mean())
    write_image(workspace.path("background.png"), image)


def audio(workspace: Workspace) -> None:
    """audio.wav and audio_features.npz, where the clip has sound."""
    from avatar3d.audio import extract_audio, features, load_audio
    from avatar3d.audio.files import save_wav

    wav = workspace.path("audio.wav")
    has_audio = extract_audio(workspace.source, wav)
    workspace.state.facts["has_audio"] = has_audio
    if not has_audio:
        workspace.warn(
            "audio",
            "The clip has no sound, so no audio driver can be trained; the avatar follows pose and "
            "expression, and text or sound through the general mouth shapes.",
        )
        return
    samples, rate = load_audio(wav)
    start = round(workspace.config.start * rate)
    length = round(workspace.frames / workspace.fps * rate)
    samples = samples[start : start + length]
    if not len(samples):
        samples = np.zeros(length, np.float32)
    save_wav(wav, samples)
    arrays = features(samples, workspace.fps, workspace.frames)
    target = workspace.path("audio_features.npz")
    with atomic_path(target) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, **arrays)


def report(workspace: Workspace) -> None:
    """quality.json and quality.html."""
    tracking = Tracking.load(workspace.path("tracking.npz"))
    facts, torso_share = workspace.state.facts, workspace.load_arrays("torso")["confidence"]
    numbers = quality_numbers(tracking, workspace.fps)
    numbers["shoulders_measured"] = round(float(torso_share.mean()), 3)
    numbers["background_seen"] = round(facts["background_seen"], 3)
    for sentence in advice(numbers):
        workspace.warn("report", sentence)
    sentences = [text for texts in workspace.state.warnings.values() for text in texts]
    usable = np.flatnonzero(tracking.valid)
    chosen = usable[_spread(len(usable), 5)][1:-1] if len(usable) > 4 else usable
    sheet = contact_sheet(
        workspace.head, tracking, workspace.frame, workspace.matte,
        workspace.parsing,
        read_image(workspace.path("background.png")), chosen,
    )  # fmt: skip
    atomic_write(workspace.path("quality.json"), json.dumps(numbers, indent=2) + "\n")
    page = quality_page(numbers, sentences, sheet, f"Capture of {workspace.source.name}")
    atomic_write(workspace.path("quality.html"), page)


STAGES: tuple[Stage, ...] = (
    Stage(
        "decode", decode, (), ("size", "crop", "max_fps", "start", "duration"), ("frames",)
    ),
    Stage(
        "landmarks", landmarks, ("decode",), (),
        (f"{CACHE}/landmarks", f"{CACHE}/landmarks.npz"),
    ),
    Stage("matte", matte, ("decode",), (), ("mattes",)),
    Stage(
        "fit", fit, ("landmarks",),
        ("focal", "identity_frames", "iterations", "chunk"),
        (f"{CACHE}/fit", f"{CACHE}/fit.npz"),
    ),
    Stage("parsing", parsing, ("fit", "matte"), (), ("parsing",), version=2),
    Stage(
        "torso", torso, ("fit", "matte", "parsing"), (), ("tracking.npz", f"{CACHE}/torso.npz"),
        version=2,
    ),
    Stage("plate", plate, ("matte",), (), ("background.png",), version=2),
    Stage("audio", audio, ("decode",), (), ("audio.wav", "audio_features.npz")),
    Stage(
        "report", report, ("torso", "parsing", "plate", "audio"), (),
        ("quality.json", "quality.html"),
    ),
)  # fmt: skip
