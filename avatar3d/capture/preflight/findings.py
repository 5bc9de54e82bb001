"""From figures to sentences: what is good, what limits the avatar and what defeats it."""

from collections.abc import Callable, Iterator

import numpy as np

from avatar3d.capture.framing import MIN_FRAMES, inside
from avatar3d.capture.preflight.hearing import offset, speech
from avatar3d.capture.preflight.measures import Measures
from avatar3d.capture.preflight.report import CheckReport, Finding, Series, Stretch
from avatar3d.subject import FRAME_REASONS

__all__ = ["judge"]

_USUAL_RATES = (12, 12.5, 15, 20, 23.976, 24, 25, 29.97, 30, 48, 50, 59.94, 60, 90, 100, 120, 240)
_PORTRAIT_EYES = 45.0
"""Pixels between the eyes below which details of eyes and mouth stay soft; 20 is hopeless."""


def judge(name: str, m: Measures) -> CheckReport:
    """The report on one clip; `name` is that of its file."""
    findings = list(_findings(m))
    bad = [f for f in findings if f.state in ("limit", "fail")]
    fails = [f for f in bad if f.state == "fail"]
    times = [f.first for f in (fails or bad) if f.first is not None]
    return CheckReport(
        source=name,
        verdict="fail" if fails else "limits" if bad else "good",
        summary=_summary(fails, bad),
        first_bad=min(times, default=None),
        fps=round(m.fps, 4),
        frames=m.scan.frames,
        seconds=round(m.seconds, 3),
        width=m.scan.width,
        height=m.scan.height,
        usable=round(float(m.usable.mean()), 4),
        offset=round(m.offset.seconds, 3) if m.offset else None,
        offset_confidence=round(m.offset.confidence, 3) if m.offset else 0.0,
        cuts=[m.time(cut) for cut in m.scan.cuts],
        unused=_unused(m),
        findings=findings,
        series=_series(m),
    )


def _findings(m: Measures) -> Iterator[Finding]:
    yield _length(m)
    yield _timing(m)
    yield _presence(m)
    if m.looks:
        checks: tuple[Callable[[Measures], Finding], ...] = (
            _people, _cuts, _size, _sharpness, _light, _mouth, _realness, _pose, _expression,
            _background,
        )  # fmt: skip
        yield from (check(m) for check in checks)
    yield speech(m)
    if m.sound.audible and m.looks:
        yield offset(m)
    if m.info.hdr:
        yield Finding(
            name="colours", title="Colours", state="note",
            text="The video is HDR; it is tone-mapped to standard range, which bends highlights.",
        )  # fmt: skip


def _summary(fails: list[Finding], bad: list[Finding]) -> str:
    if fails:
        reason = fails[0].text.rstrip(".")
        return f"Will fail because {reason[0].lower()}{reason[1:]}."
    if bad:
        reasons = [f.text.partition(";")[0].partition(":")[0].rstrip(".") for f in bad[:3]]
        listed = "; ".join(f"{reason[0].lower()}{reason[1:]}" for reason in reasons)
        return f"Usable, with limits: {listed}."
    return "Good: nothing in this clip stands in the way of a good avatar."


def _length(m: Measures) -> Finding:
    seconds, usable = m.seconds, float(m.usable.sum()) / m.fps
    values = {"seconds": round(seconds, 2), "usable_seconds": round(usable, 2)}
    finding = Finding(
        name="length", title="Length", state="good", values=values,
        text=f"The clip lasts {seconds:.1f} s, of which {usable:.1f} s can be used.",
    )  # fmt: skip
    if m.scan.frames < MIN_FRAMES:
        count = m.scan.frames
        finding.state = "fail"
        finding.text = (
            f"It has only {count} frame{'s' * (count != 1)}, at least {MIN_FRAMES} are needed."
        )
        finding.remedy = "Record 20 seconds or more."
    elif usable < 8:
        finding.state = "limit"
        finding.text = f"Only {usable:.1f} s of the clip can be used."
        finding.remedy = "20 seconds or more give better avatars; a few minutes are best."
    return finding


def _timing(m: Measures) -> Finding:
    fps, gaps = m.info.fps, m.scan.gaps
    still = m.still
    uneven = gaps[1] > 0 and (gaps[2] - gaps[0] > 0.3 * gaps[1] or m.info.variable_rate)
    usual = min(abs(fps / rate - 1) for rate in _USUAL_RATES) < 0.004
    values = {
        "fps": round(fps, 3), "still_share": round(still, 4), "longest_gap": round(gaps[3], 3),
    }  # fmt: skip
    finding = Finding(
        name="timing", title="Frame rate", state="good", values=values,
        text=f"{fps:.2f} frames a second, evenly spaced.",
    )  # fmt: skip
    if still > 0.5:
        finding.state = "limit"
        finding.text = f"The picture stands still for {100 * still:.0f} % of the clip."
        finding.remedy = "Use a recording that moves; a photograph cannot teach expressions."
    elif fps < 17:
        finding.state = "limit"
        finding.text = f"Only {fps:.1f} frames a second: blinks and fast lips are missed."
        finding.remedy = "Record at 25 or 30 frames a second."
    elif still > 0.04 and not uneven:
        finding.state = "limit" if still > 0.25 else "note"
        finding.text = f"{100 * still:.0f} % of the frames repeat the one before."
        finding.remedy = "Use the original recording; converting frame rates repeats frames."
    elif uneven:
        longest = f", the longest gap is {gaps[3]:.2f} s" if gaps[3] > 2.5 / fps else ""
        finding.state = "limit" if gaps[3] > 0.5 else "note"
        finding.text = (
            f"The frames are unevenly spaced ({1 / gaps[2]:.0f} to {1 / max(gaps[0], 1e-3):.0f} a "
            f"second{longest}); they are brought to {m.fps:.2f} a second."
        )
        finding.remedy = "Record at a constant rate, with enough light and a camera app."
    elif not usual:
        finding.state = "note"
        finding.text = f"An unusual rate of {fps:.2f} frames a second; it is kept as it is."
    return finding


def _presence(m: Measures) -> Finding:
    looks = [s for s in m.scan.samples if not s.dense]
    share = 1 - m.share("no face")
    finding = Finding(
        name="presence", title="Face in view", state="good",
        values={"share": round(share, 4)},
        text="The face is in view all the time.",
        first=m.first("no face"),
    )  # fmt: skip
    if share < 1:
        finding.text = f"The face is in view in {100 * share:.1f} % of the frames."
    if not m.looks:
        finding.state, finding.first = "fail", 0.0
        finding.text = f"No face was found in any of {len(looks)} frames looked at."
        finding.remedy = (
            "Use a clip that shows one person's face upright, well lit and from the front."
        )
        return finding
    count = int(m.usable.sum())
    if count < MIN_FRAMES <= m.scan.frames and not _blamed(m):
        finding.state = "fail"
        finding.text = (
            f"The face can be used in only {count} of {m.scan.frames} frames, at least "
            f"{MIN_FRAMES} are needed."
        )
        finding.remedy = "Use a clip that shows one person's face throughout."
    elif share < 0.98:
        finding.state = "limit" if share < 0.9 else "note"
        finding.text = (
            f"The face is in view in {100 * share:.0f} % of the frames; the rest is left out."
        )
        finding.remedy = "Keep the face in the picture, turned to the camera."
    return finding


def _blamed(m: Measures) -> bool:
    """Whether frames are unusable for a reason that has its own finding."""
    return max(m.share("second face"), m.share("hidden mouth")) > 0.5


def _people(m: Measures) -> Finding:
    beside, others = m.share("second face"), m.share("other person")
    people = m.people
    finding = Finding(
        name="people", title="One person", state="good", text="One person is in the clip.",
        values={"most_at_once": people.most, "people": people.count,
                "second_face_share": round(beside, 4), "other_person_share": round(others, 4)},
    )  # fmt: skip
    times = [t for t in (m.first("second face"), m.first("other person")) if t is not None]
    finding.first = min(times, default=None)
    if beside + others > 0.005:
        left_out = 100 * (beside + others)
        finding.state = "limit"
        finding.text = (
            f"Other people are in the clip; the largest and longest face is followed and "
            f"{left_out:.0f} % of the frames, with somebody else in view, are left out."
        )
        finding.remedy = "Cut or crop the video so that it shows one person only."
        if m.usable.sum() < MIN_FRAMES and beside > 0.5:
            finding.state = "fail"
            finding.text = f"Two people are in view in {100 * beside:.0f} % of the frames."
    elif people.most > 1:
        finding.state = "note"
        finding.first = next((m.time(i) for i, f in people.others if f.seen), None)
        kept = any(f.seen and inside(people.crop, f.box) for _, f in people.others)
        finding.text = (
            "Small faces are seen in the background; the main one is followed."
            if kept
            else "Somebody else is in the picture; the crop leaves them out."
        )
    return finding


def _cuts(m: Measures) -> Finding:
    cuts, lost = m.scan.cuts, m.share("other view")
    values = {"cuts": float(len(cuts)), "other_view_share": round(lost, 4)}
    finding = Finding(
        name="cuts", title="Cuts", state="good", text="No cuts.", values=values,
        first=m.time(cuts[0]) if cuts else None,
    )  # fmt: skip
    if not cuts:
        return finding
    amount = f"{len(cuts)} cut{'s' * (len(cuts) != 1)}"
    finding.state = "note"
    finding.text = f"{amount}; the same person goes on after each, and motion is not joined across."
    shots = {int(m.people.segments[sample.index]) for sample, _ in m.looks}
    if len(shots) <= len(cuts):
        finding.text = f"{amount}; the person is in {len(shots)} of {len(cuts) + 1} shots."
    if lost > 0.005 or m.share("other person") > 0.005 or m.people.unsure:
        finding.state = "limit"
        finding.text = f"{amount}; shots of another person or another view are left out."
        finding.remedy = "Use one continuous shot, or cut the others away."
        if m.people.unsure and not m.scan.knows_people:
            finding.text = f"{amount}; who is in some shots cannot be told, so they are left out."
            finding.remedy = "Run `avatar3d assets fetch face-identity` and check again."
    return finding


def _size(m: Measures) -> Finding:
    apart = m.eyes_apart
    finding = Finding(
        name="face_size", title="Size of the face", state="good",
        values={"eyes_apart_px": round(apart, 1)},
        text=f"The eyes are {apart:.0f} pixels apart.",
    )  # fmt: skip
    if apart < _PORTRAIT_EYES:
        finding.state = "fail" if apart < 18 else "limit"
        finding.text = f"The face is small: the eyes are {apart:.0f} pixels apart."
        finding.remedy = (
            "Move closer or record in a higher resolution; 60 pixels and more are good."
        )
        finding.first = m.first_where(m.track("eyes_apart") < _PORTRAIT_EYES)
    return finding


def _sharpness(m: Measures) -> Finding:
    blur = m.track("blur")
    median, share = float(np.median(blur)), float((blur > 0.66).mean())
    finding = Finding(
        name="sharpness", title="Sharpness", state="good",
        values={"blur": round(median, 3), "blurred_share": round(share, 3)},
        text="The face is sharp.",
    )  # fmt: skip
    if median > 0.64:
        finding.state = "fail" if median > 0.8 else "limit"
        finding.text = "The face is blurred throughout; the avatar cannot be sharper than its clip."
        finding.remedy = "Clean the lens, focus on the face, use more light."
    elif share > 0.1:
        finding.state = "limit"
        finding.text = f"The face is blurred in {100 * share:.0f} % of the clip."
        finding.remedy = "Move more slowly or use more light."
    finding.first = m.first_where(blur > 0.64) if finding.state != "good" else None
    return finding


def _light(m: Measures) -> Finding:
    dark, middle, bright = m.track("light").T
    side = np.abs(m.track("lopsided"))
    values = {
        "median": float(np.median(middle)), "dark": float(np.median(dark)),
        "bright": float(np.median(bright)), "lopsided": round(float(np.median(side)), 3),
        "flicker": round(float(np.std(np.diff(middle))), 2) if len(middle) > 2 else 0.0,
    }  # fmt: skip
    finding = Finding(
        name="light", title="Light", state="good", values=values, text="The face is well lit."
    )
    problems: tuple[tuple[np.ndarray, str, str], ...] = (
        (middle < 45, "The face is too dark", "Use more light, from the front."),
        (bright > 250, "The face is overexposed", "Reduce exposure: lost highlights stay white."),
        (bright - dark < 18, "The face has hardly any contrast", "Use more light and no filters."),
        (side > 0.3, "The face is lit from one side only", "Turn towards the light."),
    )
    for bad, text, remedy in problems:
        if bad.mean() > 0.25:
            finding.state, finding.text, finding.remedy = "limit", f"{text}.", remedy
            finding.first = m.first_where(bad)
            break
    if np.median(middle) > 245:
        finding.state = "fail"
    return finding


def _mouth(m: Measures) -> Finding:
    share = m.share("hidden mouth")
    finding = Finding(
        name="mouth", title="Mouth in view", state="good", first=m.first("hidden mouth"),
        values={"hidden_share": round(share, 4)}, text="The mouth is in view all the time.",
    )  # fmt: skip
    if not m.scan.knows_hands:
        finding.text = "The mouth is in view; hands before it could not be looked for."
    if share > 0.6:
        finding.state = "fail"
        finding.text = f"The mouth is covered in {100 * share:.0f} % of the frames."
        finding.remedy = "Take off the mask, and keep hands and microphone away from the mouth."
    elif share > 0.002:
        finding.state = "limit" if share > 0.02 else "note"
        finding.text = (
            f"The mouth is covered in {100 * share:.1f} % of the frames; they are left out."
        )
        finding.remedy = "Keep hands, microphones and cups away from the mouth."
    return finding


def _realness(m: Measures) -> Finding:
    flat, blur, iris = (float(np.median(m.track(n))) for n in ("flatness", "blur", "iris"))
    finding = Finding(
        name="realness", title="A filmed face", state="good",
        values={"flatness": round(flat, 3), "iris": round(iris, 3)},
        text="The face looks filmed.",
    )  # fmt: skip
    if m.share("hidden mouth") > 0.5:
        finding.text = "Whether the face is filmed or drawn cannot be told where it is covered."
        finding.state = "note"
    elif _light(m).state != "good" and iris < 0.245:
        finding.text = "Whether the face is filmed or drawn cannot be told in this light."
        finding.state = "note"
    elif flat > 0.4 or iris > 0.245 or (flat > 0.09 and blur < 0.32):
        finding.state, finding.first = "fail", 0.0
        finding.text = "The face looks drawn, not filmed."
        finding.remedy = (
            "Use a recording of a person; drawings lack the shading that is learnt from."
        )
    return finding


def _pose(m: Measures) -> Finding:
    yaw, pitch = m.track("yaw"), m.track("pitch")
    low, high = np.percentile(yaw, (2, 98))
    turned = float(np.median(np.abs(yaw)))
    values = {
        "yaw_low": round(float(low), 1), "yaw_high": round(float(high), 1),
        "pitch_low": round(float(np.percentile(pitch, 2)), 1),
        "pitch_high": round(float(np.percentile(pitch, 98)), 1),
    }  # fmt: skip
    finding = Finding(
        name="pose", title="Turning of the head", state="good", values=values,
        text=f"The head turns by {high - low:.0f} degrees from side to side.",
    )  # fmt: skip
    rolled = float(np.median(np.abs(m.track("roll"))))
    if rolled > 45:
        finding.state, finding.first = "fail", 0.0
        finding.text = f"The picture lies on its side or upside down, by {rolled:.0f} degrees."
        finding.remedy = "Rotate the video upright."
    elif turned > 35:
        finding.state = "fail"
        finding.text = f"The face is seen from the side only ({turned:.0f} degrees)."
        finding.remedy = "Look at the camera most of the time."
        finding.first = m.first_where(np.abs(yaw) > 35)
    elif turned > 22:
        finding.state = "limit"
        finding.text = f"The face is mostly turned away, by {turned:.0f} degrees."
        finding.remedy = "Look at the camera most of the time."
        finding.first = m.first_where(np.abs(yaw) > 22)
    elif high - low < 12:
        finding.state = "limit"
        finding.text = (
            f"The head turns by {high - low:.0f} degrees only; side views will be guessed."
        )
        finding.remedy = "Turn the head slowly to both sides, up and down, once or twice."
    return finding


def _expression(m: Measures) -> Finding:
    gap, width = m.track("lip_gap"), m.track("lip_width")
    opening = float(np.ptp(np.percentile(gap, (3, 97))))
    smile = float(np.ptp(np.percentile(width, (3, 97))) / max(np.median(width), 1e-6))
    rate = m.blinks / max(m.dense_seconds / 60, 1e-6) if m.dense_seconds > 4 else 0.0
    values = {
        "lip_gap_range": round(opening, 3), "lip_width_range": round(smile, 3),
        "blinks": float(m.blinks), "blinks_per_minute": round(rate, 1),
    }  # fmt: skip
    finding = Finding(
        name="expression", title="Expressions", state="good", values=values,
        text="The mouth opens and the face moves.",
    )  # fmt: skip
    if opening < 0.08:
        finding.state = "limit"
        finding.text = "The mouth hardly opens in this clip; its inside will be guessed."
        finding.remedy = "Speak, smile and open the mouth wide a few times."
    elif m.dense_seconds > 8 and not m.blinks:
        finding.state = "note"
        finding.text = "No blink was seen; closed eyes will be guessed."
        finding.remedy = "Do not hold the eyes open; blink as usual."
    return finding


def _background(m: Measures) -> Finding:
    share, first = m.background
    finding = Finding(
        name="background", title="Background", state="good",
        values={"moving_share": round(share, 4)}, text="The background stands still.",
    )  # fmt: skip
    if share > 0.5:
        finding.state, finding.first = "limit", first
        finding.text = "The whole background moves: the camera is not steady, or the scene is not."
        finding.remedy = "Put the camera on something firm, before a still background."
    elif share > 0.12:
        finding.state, finding.first = "limit", first
        finding.text = f"Something moves in {100 * share:.0f} % of the background."
        finding.remedy = "Use a still background; what moves there will be a blur."
    return finding


def _unused(m: Measures) -> list[Stretch]:
    reasons = m.people.reasons.astype(int)
    edges = np.flatnonzero(np.diff(reasons)) + 1
    starts, stops = np.r_[0, edges], np.r_[edges, len(reasons)]
    return [
        Stretch(start=m.time(a), stop=m.time(b), reason=FRAME_REASONS[reasons[a]])
        for a, b in zip(starts, stops, strict=True)
        if reasons[a]
    ]


def _series(m: Measures) -> Series:
    step = max(1, len(m.looks) // 1200)
    looks = m.looks[::step]

    def of(name: str, digits: int) -> list[float]:
        return [round(float(getattr(face, name)), digits) for _, face in looks]

    return Series(
        time=[m.time(sample.index) for sample, _ in looks],
        yaw=of("yaw", 1),
        pitch=of("pitch", 1),
        mouth=of("lip_gap", 3),
        eyes=of("eye_aperture", 3),
    )
