"""`avatar3d train -m`: a training for each combination of settings, through Hydra's launchers."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from avatar3d.cores import available_cores
from avatar3d.errors import UserError
from avatar3d.io.atomic import atomic_write

__all__ = ["Training", "train_all", "train_sweep", "trainings"]

_PARTIAL = 3

_GRACE = 60.0  # seconds for a checkpoint


def train_sweep(arguments: Sequence[str], folder: Path, extra: Sequence[str] = ()) -> int:
    """Train all combinations, print how each ended, and return the exit code; see `train_all`."""
    ended = train_all(arguments, folder, extra)
    for job, sentence in ended:
        print(f"{job.output}: {sentence}" if sentence else job.output)
    return _PARTIAL if any(sentence for _, sentence in ended) else 0


@dataclass(frozen=True)
class Training:
    """One combination: what to train on, how, and the avatar file to write."""

    subject: str
    overrides: tuple[str, ...]
    output: str


def trainings(arguments: Sequence[str], folder: Path) -> list[Training]:
    """All combinations of `subject=a,b key=c,d` in the grammar of Hydra's basic sweeper.

    An avatar is named after its subject and the settings that vary, `a_iterations=500.a3d`.

    Raises:
        UserError: no subject, what Hydra cannot read, a wrong setting, or two of one name.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from avatar3d.training import training_config

    parser = OverridesParser.create()
    try:
        parsed = parser.parse_overrides(list(arguments))
        (combinations,) = BasicSweeper.split_arguments(parsed, None)
        found = [
            {key: (text, parser.parse_override(text).value()) for key, text in named}
            for named in ([(t.partition("=")[0], t) for t in texts] for texts in combinations)
        ]
    except (AssertionError, AttributeError, HydraException) as error:
        reason = (str(error).strip().splitlines() or ["not a choice or range"])[0].rstrip(".")
        raise UserError(
            f"Hydra cannot sweep over {' '.join(arguments)} ({reason}); write key=a,b or "
            "'key=range(1,4)', and quote what has other characters."
        ) from error
    varied = [one.get_key_element() for one in parsed if one.is_sweep_override()]
    jobs: dict[str, Training] = {}
    for settings in found:
        if "subject" not in settings:
            raise UserError(
                "With -m the subjects are a setting, as in subject=a.subject,b.subject."
            )
        subject = str(settings.pop("subject")[1])
        overrides = tuple(text for text, _ in settings.values())
        training_config(overrides)
        parts = [f"{key}={settings[key][1]}" for key in varied if key in settings]
        name = "_".join([Path(subject).name.removesuffix(".subject"), *parts])
        output = str((folder / (re.sub(r"[^\w.=+-]+", "-", name) + ".a3d")).absolute())
        if output in jobs:
            raise UserError(
                f"{jobs[output].subject} and {subject} would both become {output}; train them "
                "in two runs with an --output of their own."
            )
        jobs[output] = Training(str(Path(subject).absolute()), overrides, output)
    return list(jobs.values())


def train_all(
    arguments: Sequence[str], folder: Path, extra: Sequence[str] = ()
) -> list[tuple[Training, str]]:
    """Run all combinations, each in a process of its own, and return how each ended.

    Args:
        arguments: `subject=...`, settings, and Hydra's own, such as `hydra/launcher=joblib`.
        folder: for the avatars, and a log beside each.
        extra: options of `avatar3d train` for each.

    Returns:
        With each training the sentence that says why it failed, or "".

    Raises:
        UserError: a mistake in the settings, or no such launcher; nothing has begun then.
    """
    own = [text for text in arguments if text.startswith(("hydra/", "hydra."))]
    jobs = trainings([text for text in arguments if text not in own], folder)
    launcher = next((t.partition("=")[2] for t in own if t.startswith("hydra/launcher=")), "basic")
    _check_launcher(launcher)
    at_once = 1
    if launcher == "joblib":  # whose own default is ten
        asked = [
            text.partition("=")[2] for text in own if text.startswith("hydra.launcher.n_jobs=")
        ]
        at_once = int(asked[-1]) if asked and asked[-1].isdecimal() else available_cores()
        at_once = min(at_once, len(jobs))
        own += [] if asked else [f"hydra.launcher.n_jobs={at_once}"]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".multirun-", dir=folder) as place:
        plan = {
            "jobs": [asdict(job) for job in jobs],
            "extra": list(extra),
            "cores": max(1, available_cores() // at_once) if at_once > 1 else 0,
        }
        (Path(place) / "plan.json").write_text(json.dumps(plan), "utf-8")
        _launch(Path(place), len(jobs), own)
        return [(job, _ending(Path(place), number)) for number, job in enumerate(jobs)]


def _check_launcher(name: str) -> None:
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    Plugins.instance()  # finds the launchers that are installed
    known = [text.removesuffix(".yaml") for text in ConfigStore.instance().list("hydra/launcher")]
    if name not in known:
        raise UserError(
            f"Hydra has no launcher {name!r} here, only {', '.join(sorted(known))}; install its "
            f"plugin, such as hydra-{name.partition('_')[0]}-launcher."
        )


def _launch(place: Path, count: int, own: Sequence[str]) -> None:
    import hydra

    arguments = [
        "--multirun", f"+place='{place.absolute()}'", f"+job={','.join(map(str, range(count)))}",
        f"hydra.sweep.dir='{place.absolute()}'", "hydra.output_subdir=null",
        "hydra/hydra_logging=disabled", "hydra/job_logging=disabled", *own,
    ]  # fmt: skip
    if count == 1:  # one value is no sweep to Hydra's parser
        arguments[2] = "+job=choice(0)"
    before, sys.argv = sys.argv, ["avatar3d", *arguments]  # where hydra.main reads
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            hydra.main(version_base="1.3", config_path=None)(_train_one)()
    except SystemExit as error:
        lines = said.getvalue().strip().splitlines() or ["it does not say why"]
        reason = lines[-1] if lines[0].startswith("Traceback") else lines[0]
        raise UserError(
            f"Hydra could not launch the trainings ({reason.rstrip('.')}); check the settings that "
            "begin with hydra."
        ) from error
    finally:
        sys.argv = before


def _train_one(config: Any) -> None:
    """What Hydra's launchers run, here or elsewhere: one training of the plan, to its end."""
    place, number = Path(str(config.place)), int(config.job)
    plan = json.loads((place / "plan.json").read_bytes())
    job = Training(**plan["jobs"][number])
    environment = dict(os.environ)
    if plan["cores"]:
        environment["OMP_NUM_THREADS"] = str(plan["cores"])
    command = [
        sys.executable, "-m", "avatar3d", "train", job.subject, *job.overrides,
        "-o", job.output, *plan["extra"],
    ]  # fmt: skip
    log = Path(job.output).with_suffix(".log")
    with open(log, "wb") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment,
            start_new_session=True,  # Ctrl-C is for us; we tell it once
        )  # fmt: skip
        try:
            code = process.wait()
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.wait(_GRACE)
            raise
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    sentence = "" if code == 0 else _sentence(log, code)
    atomic_write(place / f"{number}.json", json.dumps(sentence))


def _sentence(log: Path, code: int) -> str:
    """The last of what a command says itself, or how it ended."""
    for line in reversed(log.read_text("utf-8", "replace").splitlines()):
        if line.startswith("avatar3d: "):
            return line.removeprefix("avatar3d: ")
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"The training did not end by itself ({how}); see {log}."


def _ending(place: Path, number: int) -> str:
    try:
        return str(json.loads((place / f"{number}.json").read_bytes()))
    except OSError:
        return "Its launcher lost it; run the same command again to continue."
