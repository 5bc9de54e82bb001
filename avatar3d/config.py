"""Typed configuration: a frozen dataclass per stage, presets in conf/, `key=value` overrides."""

import ast
import difflib
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from avatar3d.errors import UserError
from avatar3d.io.atomic import atomic_write

__all__ = ["Option", "compose", "options", "presets", "save_config"]

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """One documented field of a config: dotted key, type as written, default and its docstring."""

    key: str
    type: str
    default: Any
    doc: str


def compose(group: str, schema: type[T], overrides: Sequence[str] = ()) -> T:
    """The configuration of one stage.

    Args:
        group: folder of presets in conf/, e.g. "training".
        schema: the stage's dataclass; every value is checked against its types.
        overrides: `key=value` or `group.key=value` in Hydra's grammar, and `group=preset`.

    Raises:
        UserError: an unknown key or preset (naming the nearest valid one) or a wrong type.

    Example:
        compose("training", TrainingConfig, ["training=quick", "iterations=500"])
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    keys = [option.key for option in options(schema)]
    checked = [_checked(text, group, keys) for text in overrides]
    preset = next((value for key, value in reversed(checked) if key == group), "default")
    start = [f"+{group}={preset}"] if preset in presets(group) else []
    forced = [f"++{group}.{key}={value}" for key, value in checked if key != group]
    try:
        with initialize_config_dir(str(_folder()), version_base="1.3"):
            composed = hydra_compose("config", start + forced)
        merged = OmegaConf.merge(_thawed(OmegaConf.structured(schema)), composed.get(group) or {})
        OmegaConf.resolve(merged)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(_type_message(group, error)) from error
    except HydraException as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"The configuration of {group} does not compose: {first}.") from error
    return _with_tuples(config)


def options(schema: type) -> list[Option]:
    """All keys of a config dataclass, nested ones dotted, in order of definition."""
    return list(_walk(schema, ""))


def presets(group: str) -> list[str]:
    """Names of the presets of a group, usable as `group=NAME`."""
    return sorted(path.stem for path in (_folder() / group).glob("*.yaml"))


def save_config(config: Any, path: str | Path) -> None:
    """Write a config dataclass as YAML, every value resolved, so that a run can be repeated.

    A file that says the same already is left alone.
    """
    from omegaconf import OmegaConf

    text = OmegaConf.to_yaml(OmegaConf.create(asdict(config)))
    path = Path(path)
    if not path.is_file() or path.read_bytes() != text.encode():
        atomic_write(path, text)


def _folder() -> Path:
    package = Path(__file__).parent
    for folder in (package / "conf", package.parent / "conf"):  # installed, source tree
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(f"The presets are missing from {package}; install avatar3d again.")


def _checked(text: str, group: str, keys: Sequence[str]) -> tuple[str, str]:
    """Key, without the group, and value of an override; (group, preset) to choose a preset."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UserError(f"Cannot read the setting {text!r}; write it as key=value.")
    if key == group:
        if value not in presets(group):
            raise UserError(
                f"There is no preset {value!r} for {group}; take one of "
                f"{', '.join(presets(group))}."
            )
        return group, value
    key = key.removeprefix(f"{group}.")
    if key not in keys:
        raise UserError(
            f"{group} has no setting {key!r}{_nearest(key, keys)}; "
            f"`avatar3d config {group}` lists them all."
        )
    return key, value


def _nearest(word: str, choices: Sequence[str]) -> str:
    by_last = {choice.rpartition(".")[2]: choice for choice in choices}
    close = difflib.get_close_matches(word, choices, 1) or [
        by_last[last] for last in difflib.get_close_matches(word.rpartition(".")[2], by_last, 1)
    ]
    return f" (did you mean {close[0]!r}?)" if close else ""


def _type_message(group: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0].rstrip(".")
    key = getattr(error, "full_key", None) or getattr(error, "key", None)
    return f"The setting {f'{group}.{key}' if key else group} is not valid: {reason}."


def _walk(schema: type, prefix: str) -> Iterator[Option]:
    hints, docs = get_type_hints(schema), _field_docs(schema)
    blank = schema()
    for field in fields(schema):
        key, hint = f"{prefix}{field.name}", hints[field.name]
        if isinstance(hint, type) and is_dataclass(hint):
            yield from _walk(hint, f"{key}.")
        else:
            name = hint.__name__ if isinstance(hint, type) and not get_origin(hint) else str(hint)
            yield Option(key, name, getattr(blank, field.name), docs.get(field.name, ""))


def _field_docs(schema: type) -> dict[str, str]:
    """The string literal under each field, inherited ones too; Python itself throws these away."""
    docs: dict[str, str] = {}
    for base in schema.__mro__[-2::-1]:
        if is_dataclass(base):
            docs |= _own_field_docs(base)
    return docs


def _own_field_docs(schema: type) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(schema)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    docs = {}
    for item, after in pairwise(body):
        if (
            isinstance(item, ast.AnnAssign)
            and isinstance(item.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            docs[item.target.id] = inspect.cleandoc(after.value.value)
    return docs


def _thawed(node: Any) -> Any:
    """OmegaConf marks frozen dataclasses read-only; presets must still be able to fill them."""
    from omegaconf import DictConfig, OmegaConf

    OmegaConf.set_readonly(node, False)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            _thawed(child)
    return node


def _with_tuples(config: Any) -> Any:
    """OmegaConf turns tuples into lists; give fields declared as tuples their type back."""
    hints = get_type_hints(type(config))
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            _with_tuples(value)
        elif isinstance(value, list) and get_origin(hints[field.name]) is tuple:
            object.__setattr__(config, field.name, tuple(value))
    return config
