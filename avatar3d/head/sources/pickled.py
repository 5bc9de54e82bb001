"""Reads arrays out of Python pickles without unpickling: no name in the file is ever looked up.

`pickletools` splits the file into its instructions; this module carries out those that build plain
data. What a pickle would call or construct becomes a `Made`, a record of the name and its
arguments. NumPy arrays, SciPy's sparse matrices and chumpy's arrays are then recognised among the
records and rebuilt from their bytes; everything else stays a record that does nothing.
"""

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.errors import UserError

__all__ = ["Made", "read_pickled_arrays"]

_MAX_BYTES = 2 << 30
_MARK = object()
_ARRAY = re.compile(r"numpy(\._?core)?\.(multiarray|numeric)$")
_SPARSE = re.compile(r"scipy\.sparse.*\.(csc|csr|coo)_(matrix|array)$")
_DTYPE = re.compile(r"^[bifu][1248]$")


@dataclass
class Made:
    """What the file asks to have made: a name, arguments, and what is then put into it."""

    name: str
    arguments: Any = ()
    state: Any = None


def read_pickled_arrays(path: str | Path) -> dict[str, Any]:
    """The dictionary that a pickle holds, with arrays as numpy arrays.

    Args:
        path: a pickle of a dictionary, any protocol, written by Python 2 or 3.

    Returns:
        Names to numpy arrays (sparse matrices made dense), numbers, strings, lists, tuples and
        dictionaries of these, and `Made` for everything else.

    Raises:
        UserError: not a pickle, damaged, or not a dictionary.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("larger than any model should be")
        content = _value(_Reader().read(path.read_bytes()), {}, 0)
    except (
        OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError,
        OverflowError, MemoryError,
    ) as error:  # fmt: skip
        raise UserError(
            f"{path} cannot be read as a pickle of arrays ({type(error).__name__}: {error}); "
            "download it again."
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold named arrays; give the model file itself.")
    return {_text(name): value for name, value in content.items()}


class _Reader:
    """The stack machine of the pickle format, without the instructions that do anything."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def read(self, data: bytes) -> Any:
        for instruction, argument, _ in pickletools.genops(data):
            name = instruction.name
            if name == "STOP":
                return self.stack.pop()
            self._carry_out(name, argument)
        raise ValueError("it ends in the middle")

    def _carry_out(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[int(argument)])
        elif name in ("POP", "POP_MARK"):
            self._marked() if name == "POP_MARK" else stack.pop()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in _COLLECTIONS:
            stack.append(_COLLECTIONS[name](self._marked()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if name == "APPEND" else self._marked()
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._marked()
            if isinstance(stack[-1], dict):
                stack[-1].update(_pairs(items))
        else:
            self._make(name, argument)

    def _make(self, name: str, argument: Any) -> None:
        """Instructions that would call something: only noted down."""
        stack = self.stack
        if name == "GLOBAL":
            stack.append(Made(str(argument).replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            stack[-2:] = [Made(f"{stack[-2]}.{stack[-1]}")]
        elif name in ("REDUCE", "NEWOBJ"):
            stack[-2:] = [Made(_name(stack[-2]), stack[-1])]
        elif name == "NEWOBJ_EX":
            stack[-3:] = [Made(_name(stack[-3]), stack[-2])]
        elif name == "INST":
            stack.append(Made(str(argument).replace(" ", "."), tuple(self._marked())))
        elif name == "OBJ":
            first, *rest = self._marked()
            stack.append(Made(_name(first), tuple(rest)))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], Made):
                stack[-1].state = state
        else:  # persistent ids, extension registry, out-of-band buffers
            raise ValueError(f"it uses {name}")

    def _marked(self) -> list[Any]:
        """Take everything down to the last mark off the stack."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("a mark is missing")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items


_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING",
    "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": list,
}  # fmt: skip
_COLLECTIONS: dict[str, Callable[[list[Any]], Any]] = {
    "LIST": list, "TUPLE": tuple, "FROZENSET": list, "DICT": lambda items: dict(_pairs(items)),
}  # fmt: skip


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    keys = [_text(key) for key in items[::2]]
    return list(zip(keys, items[1::2], strict=True))


def _text(key: Any) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def _name(maker: Any) -> str:
    if not isinstance(maker, Made):
        raise ValueError("something that is no name is called")
    return maker.name


def _value(item: Any, done: dict[int, Any], depth: int) -> Any:
    """Records replaced by the arrays they describe."""
    if depth > 50:
        raise ValueError("nested too deeply")
    if isinstance(item, dict):
        return {key: _value(value, done, depth + 1) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return type(item)(_value(value, done, depth + 1) for value in item)
    if not isinstance(item, Made):
        return item
    if id(item) not in done:
        done[id(item)] = item  # a record that contains itself stays a record
        done[id(item)] = _array(item, done, depth)
    return done[id(item)]


def _array(item: Made, done: dict[int, Any], depth: int) -> Any:
    module, _, function = item.name.rpartition(".")
    if _ARRAY.match(module) and function == "_reconstruct" and isinstance(item.state, tuple):
        _, shape, dtype, fortran, data = item.state
        return _from_bytes(data, dtype, shape, bool(fortran))
    if _ARRAY.match(module) and function == "_frombuffer":
        data, dtype, shape, order = item.arguments
        return _from_bytes(data, dtype, shape, order == "F")
    if _ARRAY.match(module) and function == "scalar":
        dtype, data = item.arguments
        return _from_bytes(data, dtype, (), False)[()]
    name = item.name
    if name in ("copy_reg._reconstructor", "copyreg._reconstructor"):
        name = _name(item.arguments[0])
    state = item.state
    if isinstance(state, tuple) and len(state) == 2 and state[0] is None:
        state = state[1]
    if _SPARSE.match(name) and isinstance(state, dict):
        return _sparse(_SPARSE.match(name).group(1), _value(state, done, depth + 1))  # type: ignore[union-attr]
    if name.startswith("chumpy.") and isinstance(state, dict) and "x" in state:
        return _value(state["x"], done, depth + 1)
    return item


def _from_bytes(data: Any, dtype: Any, shape: Any, fortran: bool) -> np.ndarray:
    """An array of plain numbers."""
    if isinstance(data, Made):  # how Python 3 writes bytes for Python 2
        if data.name not in ("_codecs.encode", "__builtin__.bytes", "builtins.bytes"):
            raise ValueError("an array without bytes")
        data = data.arguments[0] if data.arguments else b""
    raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
    kind = _number_type(dtype)
    count = 1
    for side in shape:
        count *= int(side)
    if count * kind.itemsize != len(raw) or min(shape, default=0) < 0:
        raise ValueError(f"an array of shape {shape} does not fit its {len(raw)} bytes")
    return np.frombuffer(raw, kind).reshape(shape, order="F" if fortran else "C")


def _number_type(dtype: Any) -> np.dtype:
    if not isinstance(dtype, Made) or dtype.name != "numpy.dtype":
        raise ValueError("an array without a number type")
    code = _text(dtype.arguments[0])
    if not _DTYPE.match(code):
        raise ValueError(f"an array of {code}, not of numbers")
    order = _text(dtype.state[1]) if isinstance(dtype.state, tuple) else "<"
    return np.dtype((order if order in "<>" else "") + code)


def _sparse(kind: str, state: dict[str, Any]) -> np.ndarray:
    """Dense twin of a sparse matrix, after checking that its indices stay inside."""
    from scipy import sparse

    shape = tuple(int(side) for side in state.get("_shape", state.get("shape", ())))
    if len(shape) != 2 or shape[0] * shape[1] > 1 << 24:
        raise ValueError(f"a sparse matrix of shape {shape}")
    if kind == "coo":
        matrix = sparse.coo_matrix((state["data"], (state["row"], state["col"])), shape)
    else:
        make = sparse.csc_matrix if kind == "csc" else sparse.csr_matrix
        matrix = make((state["data"], state["indices"], state["indptr"]), shape)
        matrix.check_format(full_check=True)
    return matrix.toarray()
