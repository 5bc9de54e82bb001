"""What avatar3d/DESIGN.md says about the code, checked against the code."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "avatar3d"

# Layers from the bottom up. The longest matching prefix decides.
LAYERS = (
    (
        "maths",
        (
            "errors",
            "progress",
            "memory",
            "cores",
            "config",
            "io",
            "provenance",
            "geometry",
            "kernels",
            "assets",
            "audio",
        ),
    ),
    ("nouns", ("head", "motion", "motion.*", "subject", "avatar")),
    ("core", ("capture", "training", "rendering", "synth")),
    ("apps", ("evaluation", "export", "viewer")),
    ("batch", ("batch",)),
    ("cli", ("cli", "__main__", "")),
)
ORDER = {name: height for height, (name, _) in enumerate(LAYERS)}

# Imported inside the function that needs them, never when a module is loaded.
LAZY = {
    "av", "c2pa", "cryptography", "cuda", "cv2", "espeakng_loader", "filelock", "fsspec", "gsplat",
    "hydra", "imageio", "matplotlib", "mediapipe", "omegaconf", "onnxruntime", "PIL", "pyarrow",
    "ray", "rich", "skimage", "submitit", "tensorboard", "transformers", "trimesh", "viser",
}  # fmt: skip
DISTRIBUTIONS = {
    "c2pa": "c2pa-python", "cuda": "cuda-core", "cv2": "opencv-contrib-python",
    "hydra": "hydra-core", "PIL": "pillow", "yaml": "pyyaml", "espeakng_loader": "espeakng-loader",
}  # fmt: skip
MAX_LINES = 600


def sources(*folders: str, suffixes: tuple[str, ...] = (".py",)) -> list[Path]:
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes and not {"__pycache__", "node_modules"} & set(path.parts)
    )


def module_name(path: Path) -> str:
    """Dotted name without the leading `avatar3d.`; empty for the package itself."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(module: str) -> str:
    best, found = -1, ""
    for name, prefixes in LAYERS:
        for prefix in prefixes:
            stem = prefix.removesuffix(".*")
            exact = module == stem and not prefix.endswith(".*")
            below = module.startswith(f"{stem}.") and (prefix.endswith(".*") or stem != "motion")
            length = len(prefix) + exact
            if (exact or below) and length > best:
                best, found = length, name
    assert found, f"avatar3d.{module} has no layer in tests/test_design.py and DESIGN.md"
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imports(path: Path, top_level: bool = False) -> Iterator[str]:
    """Absolute names of imported modules; `from a import b` yields a, and a.b where a module."""
    nodes = loaded_at_import(tree(path)) if top_level else ast.walk(tree(path))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} uses a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if is_module(inner) else str(node.module)


def loaded_at_import(module: ast.Module) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported: not in functions, not under TYPE_CHECKING."""
    waiting: list[ast.AST] = [module]
    while waiting:
        node = waiting.pop()
        yield node
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.expr):
            waiting += node.orelse if typing_only else ast.iter_child_nodes(node)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return name.startswith("avatar3d") and (
        path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
    )


PYTHON = sources("avatar3d")


@pytest.mark.parametrize("path", PYTHON, ids=module_name)
def test_imports_only_go_down(path):
    own = layer(module_name(path))
    for name in imports(path):
        if name.startswith("avatar3d"):
            target = layer(name.removeprefix("avatar3d").removeprefix("."))
            assert ORDER[target] <= ORDER[own], (
                f"{module_name(path)} ({own}) imports {name} ({target})"
            )


def test_no_import_cycles():
    graph = {
        f"avatar3d.{module_name(path)}".rstrip("."): {
            name for name in imports(path, top_level=True) if name.startswith("avatar3d.")
        }
        for path in PYTHON
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


@pytest.mark.parametrize("path", PYTHON, ids=module_name)
def test_heavy_libraries_are_imported_where_they_are_used(path):
    heavy = {name.partition(".")[0] for name in imports(path, top_level=True)} & LAZY
    assert not heavy, f"import {heavy} inside the function that needs it"


@pytest.mark.parametrize("path", PYTHON, ids=module_name)
def test_data_files_never_run_code(path):
    """No pickle, no eval, no instantiation by name: see "File contracts" in DESIGN.md."""
    dangerous = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    assert not dangerous & {name.partition(".")[0] for name in imports(path)}
    forbidden = {
        "eval", "exec", "torch.load", "torch.save", "yaml.load", "yaml.unsafe_load", "instantiate",
        "hydra.utils.instantiate", "os.system",
    }  # fmt: skip
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in forbidden, f"{path}:{node.lineno} calls {called}"
        if called in ("np.load", "numpy.load"):
            flags = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert flags.get("allow_pickle") == "False", f"{path}:{node.lineno}"


def test_files_stay_readable():
    suffixes = (".py", ".h", ".hpp", ".cpp", ".cu", ".js", ".ts", ".sh")
    counts = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for path in sources("avatar3d", "cuda", "tests", "tools", suffixes=suffixes)
    }
    assert counts
    assert not {name: count for name, count in counts.items() if count > MAX_LINES}


def test_every_imported_package_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + [line for extra in extras.values() for line in extra]
    declared = {re.split(r"[^A-Za-z0-9._-]", line)[0].lower() for line in lines}
    for path in PYTHON:
        for name in imports(path):
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names and top != "avatar3d":
                distribution = DISTRIBUTIONS.get(top, top)
                assert distribution in declared, f"{path} imports {top}"


def test_import_is_quick_and_light():
    """Under a second, best of three because the machine may be busy, and without torch."""
    program = (
        "import sys, time; start = time.perf_counter(); import avatar3d; "
        "print(time.perf_counter() - start, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    seconds = []
    for _ in range(3):
        result = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        elapsed, torch_loaded, numpy_loaded = result.stdout.split()
        seconds.append(float(elapsed))
        assert (torch_loaded, numpy_loaded) == ("False", "False")
    assert min(seconds) < 1.0


def test_public_names_exist():
    import avatar3d

    for name in avatar3d.__all__:
        assert getattr(avatar3d, name) is not None
