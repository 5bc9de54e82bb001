#!/usr/bin/env python3
"""Damage avatars, subjects, motions, PLY files, pictures and clips, and see that nothing gives way.

    python tools/mutate_files.py --avatar A.a3d --subject A.subject [--video CLIP]
        [--count 1000] [--seed 0] [--keep FOLDER]

Every damaged file must open or give one sentence, within 10 s and 1.5 GB. Meanwhile an audit hook
watches for code that is run, processes, sockets and files outside the one given. Exit code 0 if all
is well. Archives are damaged as bytes and, with right checksums, inside.
"""

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from mutate_clips import _DAMAGES as DAMAGES
from mutate_clips import encoded

__all__ = ["examine", "problems"]

SECONDS, GIGABYTES = 10, 1.5  # the memory beyond what the libraries take
_BATCH = 100
_FRAMES = 200  # decoded of a clip
_PROGRAM = """
import faulthandler, itertools, json, os, resource, socket, sys, time, warnings
from pathlib import Path
faulthandler.enable()
warnings.simplefilter("ignore")
import numpy as np, av, PIL.Image, yaml, torch, c2pa, cryptography.x509, zipfile, encodings.idna
from avatar3d.audio import load_audio
from avatar3d.avatar import load
from avatar3d.errors import UserError
from avatar3d.io.images import read_image
from avatar3d.io.ply import read_ply
from avatar3d.io.video import probe, read_frames
from avatar3d.motion import Motion
from avatar3d.motion.keyframes import read_keyframes
from avatar3d.provenance import verify
from avatar3d.subject import Subject, read_consent

PIL.Image.init()
try:
    probe(Path(sys.executable))  # starts the process that decodes
except UserError:
    pass

def subject(path):
    it = Subject(path)
    it.tracking, it.audio_features, it.background, it.audio_path
    it.frame(0), it.matte(0), it.parsing(0)

def media(path):
    told = []
    for read in (probe, lambda p: [None for _ in itertools.islice(read_frames(p), FRAMES)],
                 load_audio):
        try:
            read(path)
        except UserError as error:
            told.append(str(error))
    if told:
        raise UserError(told[0])

def avatar(path):
    it = load(path)
    if max(it.camera.width, it.camera.height) <= 2048:
        it.render({"jawOpen": 0.5}, yaw=0.1)

OPENERS = {"avatar": avatar, "subject": subject, "motion": Motion.load, "ply": read_ply,
           "media": media, "image": read_image, "keyframes": read_keyframes,
           "follow": lambda p: open(p.read_text()).close(),  # does wrong, to test this program
           "consent": lambda p: read_consent(str(p)), "verify": verify}
FRAMES, seconds, allowed = int(sys.argv[1]), int(sys.argv[2]), ()
FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork",
             "os.spawn", "pty.", "urllib.Request", "pickle.find_class", "exec",
             "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink",
             "os.truncate", "shutil.")
OWN = tuple({sys.prefix, sys.base_prefix, os.path.dirname(os.path.dirname(av.__file__)),
             os.path.dirname(os.path.dirname(os.path.abspath(sys.modules["avatar3d"].__file__)))})
INTERNAL = "<__array_function__ internals>"
seen, armed = [], False
def hook(event, args):
    if not armed:
        return
    if event == "exec":
        name = getattr(args[0], "co_filename", "?")
        # a module of an installed library that is imported at its first use; numpy and the like
        # also build their own functions, whose file is a name in angle brackets
        if name.startswith(OWN) or name.startswith("<frozen ") or name == INTERNAL:
            return
    elif event == "open":
        if not isinstance(args[0], (str, bytes)):
            return
        name = os.path.realpath(os.fsdecode(args[0]))
        if name.startswith((*OWN, *allowed, "/proc/", "/dev/", "/sys/")):
            return
    elif not event.startswith(FORBIDDEN):
        return
    elif event in ("socket.__new__", "socket.sendmsg") and args[1] in (None, socket.AF_UNIX):
        return  # a pair without an address, to the process that decodes
    seen.append(f"{event} {str(args)[:200]}")
sys.addaudithook(hook)
first = True
for line in sys.stdin:
    kind, name = json.loads(line)
    path = Path(name)
    started = time.monotonic()
    faulthandler.dump_traceback_later(seconds * (6 if first else 1), exit=True)
    del seen[:]
    allowed = (os.path.realpath(name),)
    # The first of a kind is whole: whatever libraries load or make for it is theirs.
    before, armed = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, not first
    try:
        OPENERS[kind](path)
        said = "opened"
    except UserError as error:
        said = str(error)
    except BaseException as error:
        said = f"RAISED {type(error).__name__}: {error}"
    armed = False
    faulthandler.cancel_dump_traceback_later()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = [kind, path.name, said, time.monotonic() - started, (peak - before) / 1e6, seen]
    print("ANSWER " + json.dumps(told), flush=True)
    first = False
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--avatar", type=Path, required=True)
    parser.add_argument("--subject", type=Path, required=True)
    parser.add_argument("--video", type=Path, help="also damage a clip, in six containers")
    parser.add_argument("--count", type=int, default=1000, help="of files that are no media")
    parser.add_argument("--clips", type=int, default=1000, help="of media files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for files that did harm")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="avatar3d-mutants-") as name:
        return run(options, Path(name))


def run(options: argparse.Namespace, folder: Path) -> int:
    whole = originals(options, folder)
    rng = np.random.default_rng(options.seed)
    answers: Counter[str] = Counter()
    harm = 0
    for kind, sources in whole.items():
        count = (
            options.clips if kind == "media" else options.count // (len(whole) - ("media" in whole))
        )
        done = 0
        for batch in batches(kind, sources, count, folder / kind, rng):
            files = [(kind, sources[0]), *((kind, path) for path in batch)]
            for answer in examine(files):
                path = next(p for _, p in files if p.name == answer[1])
                problem = problems(answer, whole=answer is files[0])
                if problem:
                    harm += 1
                    print(f"HARM   {kind} {answer[1]}: {problem}", flush=True)
                    if options.keep:
                        options.keep.mkdir(parents=True, exist_ok=True)
                        copy = shutil.copytree if path.is_dir() else shutil.copy
                        copy(path, options.keep / f"{kind}-{path.name}")
                answers[f"{kind}: {answer[2].replace(str(path), 'FILE')[:90]}"] += 1
            done += len(batch)
            print(f"{kind}: {done} of {count}, {harm} harmful", flush=True)
            shutil.rmtree(folder / kind)
    for said, count in answers.most_common(60):
        print(f"{count:5d}  {said}")
    print(f"{sum(answers.values())} files, {harm} harmful")
    return 1 if harm else 0


def originals(options: argparse.Namespace, folder: Path) -> dict[str, list[Path]]:
    """Whole files of every kind, as small as they can be; a radiance field has no PLY."""
    from avatar3d.avatar import SplatAvatar, load
    from avatar3d.export import export

    avatar = load(options.avatar)
    small = folder / "whole"
    small.mkdir()
    avatar.idle_motion.slice(0, 40).save(small / "m.npz")
    clouds = [small / "a.ply"] if isinstance(avatar, SplatAvatar) else []
    for path in clouds:
        export(avatar, path)
    export(avatar, small / "pictures", format="png", motion=avatar.idle_motion.slice(0, 1))
    shutil.copy(options.avatar, small / "a.a3d")
    subject = small / "s.subject"
    for name in ("frames/000000.jpg", "mattes/000000.png", "parsing/000000.png"):
        (subject / name).parent.mkdir(parents=True)
        shutil.copy(options.subject / name, subject / name)
    for path in options.subject.iterdir():
        if path.is_file() and path.suffix in (".json", ".npz", ".png"):
            shutil.copy(path, subject)
    (small / "k.yaml").write_text(
        "keys: [{time: 0, yaw: 20}, {time: 1, expression: {jawOpen: 1}}]\n"
    )
    picture = small / "pictures/000000.png"
    whole = {
        "avatar": [small / "a.a3d"], "subject": [subject], "motion": [small / "m.npz"],
        "image": [picture], "verify": [picture, *clouds], "keyframes": [small / "k.yaml"],
    }  # fmt: skip
    if clouds:
        whole["ply"] = clouds
    if options.video:
        kinds = ("mp4", "mov", "mkv", "webm", "avi", "ts")
        whole["media"] = [encoded(options.video, small / f"whole.{suffix}") for suffix in kinds]
        whole["verify"].append(small / "whole.mp4")
    return whole


def batches(
    kind: str, sources: list[Path], count: int, folder: Path, rng: np.random.Generator
) -> Iterator[list[Path]]:
    """Lists of damaged copies."""
    for first in range(0, count, _BATCH):
        folder.mkdir()
        numbers = range(first, min(first + _BATCH, count))
        yield [damaged(sources[n % len(sources)], folder, n, rng) for n in numbers]


def damaged(source: Path, folder: Path, number: int, rng: np.random.Generator) -> Path:
    name, damage = DAMAGES[number % len(DAMAGES)]
    path = folder / f"{number:05d}-{name}-{source.name}"
    if source.is_dir():
        shutil.copytree(source, path)
        files = sorted(p for p in path.rglob("*") if p.is_file())
        victim = files[int(rng.integers(len(files)))]
        victim.write_bytes(broken(victim, damage, number, rng))
    else:
        path.write_bytes(broken(source, damage, number, rng))
    return path


def broken(path: Path, damage: Any, number: int, rng: np.random.Generator) -> bytes:
    """The bytes of a damaged copy; two out of three archives are whole outside, broken inside."""
    data = path.read_bytes()
    if path.suffix not in (".a3d", ".npz") or number % 3 == 0:
        return damage(np.frombuffer(data, np.uint8).copy(), rng).tobytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    victim = sorted(members)[int(rng.integers(len(members)))]
    content = members[victim]
    # The header of an array is where its shape and type are.
    part = content if number % 2 or len(content) < 600 else content[:600]
    members[victim] = (
        damage(np.frombuffer(part, np.uint8).copy(), rng).tobytes() + content[len(part) :]
    )
    if "manifest.json" in members and victim != "manifest.json":
        manifest = json.loads(members["manifest.json"])
        digest = hashlib.sha256(members[victim]).hexdigest()
        manifest["members"][victim] = {"size": len(members[victim]), "sha256": digest}
        members["manifest.json"] = json.dumps(manifest).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def examine(files: list[tuple[str, Path]]) -> list[list[Any]]:
    """[kind, name, what was said, seconds, gigabytes more, events] of every file, in order.

    The first file must be whole: what is loaded for it is not counted. A process that dies is
    replaced, and the file it died of has `DIED` as its answer.
    """
    answers: list[list[Any]] = []
    left = files[1:]
    while True:
        lines = [json.dumps([kind, str(path)]) for kind, path in (files[0], *left)]
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(_FRAMES), str(SECONDS)],
            input="\n".join(lines), capture_output=True, text=True,
        )  # fmt: skip
        told = [json.loads(text[7:]) for text in done.stdout.splitlines() if text[:7] == "ANSWER "]
        if not told:
            raise RuntimeError(f"even the whole file fails: {done.stderr[-2000:]}")
        answers += told[1:] if answers else told
        missing = left[len(told) - 1 :]
        if not missing:
            return answers
        kind, path = missing[0]
        answers.append([kind, path.name, f"DIED {done.stderr[-600:]}", 0.0, 0.0, []])
        left = missing[1:]


def problems(answer: list[Any], whole: bool = False) -> str:
    """What is wrong with an answer; empty if nothing is."""
    _, _, said, seconds, gigabytes, events = answer
    if said.startswith(("RAISED", "DIED")):
        return said
    if said != "opened" and ("\n" in said or len(said) > 600 or not said.endswith((".", "?"))):
        return f"said {said!r}"
    if whole and said != "opened":
        return f"is whole, but {said}"
    if seconds > SECONDS:
        return f"took {seconds:.0f} s"
    if gigabytes > GIGABYTES:
        return f"took {gigabytes:.1f} GB"
    return f"did {events[:3]}" if events else ""


if __name__ == "__main__":
    sys.exit(main())
