"""Presets, overrides and their error messages."""

from dataclasses import dataclass, field

import pytest
import yaml

from avatar3d import config
from avatar3d.capture.config import CaptureConfig
from avatar3d.errors import UserError
from avatar3d.training.config import TrainingConfig

GROUPS = {"capture": CaptureConfig, "training": TrainingConfig}


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    """Speed."""
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    steps: int = 10
    """How many."""
    name: str | None = None
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise UserError("outer.steps must not be negative.")


@pytest.fixture
def outer(tmp_path, monkeypatch):
    """Compose the group "outer" from presets in a folder of its own."""
    folder = tmp_path / "outer"
    folder.mkdir()
    (tmp_path / "config.yaml").write_text("")
    (folder / "default.yaml").write_text("steps: 20\n")
    (folder / "quick.yaml").write_text("defaults: [default]\ninner: {rate: 2}\n")
    monkeypatch.setattr(config, "_folder", lambda: tmp_path)
    return lambda *overrides: config.compose("outer", Outer, overrides)


def test_presets_and_overrides_stack(outer):
    assert outer() == Outer(steps=20)
    assert outer("outer=quick") == Outer(steps=20, inner=Inner(rate=2.0))
    changed = outer("outer=quick", "steps=3", "outer.inner.rate=.25", "inner.sizes=[4]", "name=x")
    assert changed == Outer(3, "x", Inner(0.25, (4,)))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("step=3", ["'step'", "'steps'"]),
        ("rate=3", ["'rate'", "'inner.rate'"]),
        ("steps=many", ["outer.steps", "'many'", "Integer"]),
        ("steps=1.5", ["outer.steps", "1.5"]),
        ("inner.sizes=wide", ["outer.inner.sizes"]),
        ("outer=fast", ["'fast'", "default, quick"]),
        ("steps", ["'steps'", "key=value"]),
        ("steps=[1,", ["outer"]),
        ("steps=-1", ["negative"]),
    ],
)
def test_a_slip_is_one_sentence(outer, override, words):
    with pytest.raises(UserError) as caught:
        outer(override)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(("group", "schema"), GROUPS.items())
def test_every_preset_composes_and_the_default_changes_nothing(group, schema):
    assert config.compose(group, schema) == schema()
    for preset in config.presets(group):
        assert isinstance(config.compose(group, schema, [f"{group}={preset}"]), schema)


@pytest.mark.parametrize("schema", GROUPS.values())
def test_every_setting_is_documented(schema):
    assert [option.key for option in config.options(schema) if not option.doc] == []


def test_a_saved_config_reads_back(tmp_path):
    path = tmp_path / "config.yaml"
    config.save_config(Outer(7, "n", Inner(0.125, (3, 4))), path)
    expected = {"steps": 7, "name": "n", "inner": {"rate": 0.125, "sizes": [3, 4]}}
    assert yaml.safe_load(path.read_text()) == expected
