"""One poisoned step does not reach the parameters; many end the training in one sentence."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avatar3d.avatar import load
from avatar3d.errors import UserError
from avatar3d.subject import Subject
from avatar3d.training import TrainingConfig, train
from avatar3d.training.events import Event, Said, Step
from avatar3d.training.losses import Losses
from avatar3d.training.soundness import StepGuard

TINY = TrainingConfig(
    gaussians=200, basis=2, warmup_iterations=6, iterations=12, refine_steps=1, refine_scale=1.0
)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_poisoned_step_is_left_out(poison: float, where: str) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    guard = StepGuard()

    def take(bad: bool) -> list[Said]:
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        if bad and where == "gradient":
            assert weight.grad is not None
            weight.grad[1] = poison
        return [*guard.step(optimizer, loss * poison if bad and where == "loss" else loss, "it")]

    assert take(bad=False) == []
    before = weight.detach().clone()
    (said,) = take(bad=True)
    assert where in said.message
    assert torch.equal(weight, before)
    assert take(bad=False) == []
    assert not torch.equal(weight, before)
    assert guard.skipped == 1
    for _ in range(24):
        take(bad=True)
    with pytest.raises(UserError, match="25 times in a row"):
        take(bad=True)


def test_training_survives_poisoned_losses(
    tiny_subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third of every four losses is not a number, in every phase."""
    plain, calls = Losses.__call__, [0]

    def poisoned(self, *arguments):
        loss, terms = plain(self, *arguments)
        calls[0] += 1
        return (loss * float("nan") if calls[0] % 4 == 3 else loss), terms

    monkeypatch.setattr(Losses, "__call__", poisoned)
    events: list[Event] = []
    train(tiny_subject, tmp_path / "me.a3d", TINY, [events.append])
    told = [event.message for event in events if isinstance(event, Said)]
    assert any("Left out iteration 2 of the warmup phase" in text for text in told)
    assert any("final phase" in text for text in told)
    assert sum(np.isnan(event.loss) for event in events if isinstance(event, Step)) == 4
    assert np.isfinite(load(tmp_path / "me.a3d").state.position).all()


def test_a_training_that_comes_apart_keeps_its_checkpoint(
    tiny_subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = Losses.__call__, [0]

    def poisoned(self, *arguments):
        loss, terms = plain(self, *arguments)
        calls[0] += 1
        return (loss * float("nan") if calls[0] > 10 else loss), terms

    monkeypatch.setattr(Losses, "__call__", poisoned)
    config = replace(TINY, iterations=60, checkpoint_seconds=0.0)
    with pytest.raises(UserError, match="come apart") as caught:
        train(tiny_subject, tmp_path / "me.a3d", config)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    train(tiny_subject, tmp_path / "me.a3d", config)
    assert np.isfinite(load(tmp_path / "me.a3d").state.color).all()
