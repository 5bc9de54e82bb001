"""`avatar3d train -m`: which trainings there are, and what becomes of those that fail."""

from pathlib import Path

import pytest

from avatar3d.cli.sweep import trainings
from avatar3d.errors import UserError


def test_every_combination_is_a_training_named_after_what_varies(tmp_path):
    jobs = trainings(
        ["subject=a.subject,'my b.subject'", "training=fast", "iterations=range(10,30,10)"],
        tmp_path,
    )
    assert [(Path(job.subject).name, job.overrides) for job in jobs] == [
        ("a.subject", ("training=fast", "iterations=10")),
        ("a.subject", ("training=fast", "iterations=20")),
        ("my b.subject", ("training=fast", "iterations=10")),
        ("my b.subject", ("training=fast", "iterations=20")),
    ]
    assert [Path(job.output).name for job in jobs] == [
        "a_iterations=10.a3d", "a_iterations=20.a3d",
        "my-b_iterations=10.a3d", "my-b_iterations=20.a3d",
    ]  # fmt: skip
    (only,) = trainings(["subject=a.subject", "iterations=5"], tmp_path)
    assert (only.output, only.overrides) == (str(tmp_path / "a.a3d"), ("iterations=5",))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["training=fast"], "subjects are a setting"),
        (["subject=a,b", "iterations=interval(1,2)"], "Hydra cannot sweep"),
        (["subject=a,(b"], "Hydra cannot sweep"),
        (["subject=x/a,y/a"], "would both become"),
        (["subject=a,b", "iteratoins=5"], "did you mean 'iterations'"),
    ],
)
def test_mistakes_in_a_sweep_are_one_sentence(tmp_path, arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        trainings(arguments, tmp_path)


def test_a_launcher_that_is_not_there_is_named(run_here, tmp_path):
    result = run_here("train", "-m", "subject=a.subject,b.subject", "hydra/launcher=moon")
    assert result.returncode == 2
    assert "Hydra has no launcher 'moon' here, only basic" in result.stderr
    result = run_here("train", "-m", "subject=a.subject,b.subject", "hydra.launcher.moon=3")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "Could not override 'hydra.launcher.moon'" in result.stderr


def test_trainings_that_fail_stop_no_other_and_the_exit_code_says_partial(run_here, tmp_path):
    result = run_here("train", "-m", "subject=a.subject,b.subject", "-o", tmp_path / "out")
    assert result.returncode == 3
    lines = result.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        str(tmp_path / "out" / f"{name}.a3d") for name in "ab"
    ]
    assert all("is not a subject folder" in line for line in lines)
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".log", ".log"]
