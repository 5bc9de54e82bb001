"""Compiled kernels, loaded on a GPU and launched on torch's current stream."""

from functools import cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from avatar3d.kernels.cuda.compiler import build

__all__ = ["Argument", "Module", "load"]

Argument = Tensor | int | float | None


class Module(Protocol):
    """The kernels of one source file on one device."""

    def launch(
        self, kernel: str, grid: tuple[int, int], threads: int, *arguments: Argument
    ) -> None:
        """Start a kernel.

        Args:
            grid: blocks in x and y.
            threads: of a block.
            arguments: a contiguous tensor becomes its address, None a null pointer, an int an int32
                and a float a float32.
        """


def load(source: str, device: torch.device) -> Module:
    """One of compiler.SOURCES, compiled if need be, for the device of the tensors it will see."""
    index = torch.cuda.current_device() if device.index is None else device.index
    return _load(source, index)


@cache
def _load(source: str, index: int) -> Module:
    major, minor = torch.cuda.get_device_capability(index)
    return _CudaModule(build(source, f"sm_{major}{minor}"), source, index)


class _TorchStream:
    """torch's current stream by the protocol that cuda-core understands."""

    def __init__(self, index: int) -> None:
        self._handle = torch.cuda.current_stream(index).cuda_stream

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._handle


class _CudaModule:
    def __init__(self, cubin: bytes, name: str, index: int) -> None:
        from cuda.core import Device, ObjectCode

        self._index = index
        Device(index).set_current()  # the context that torch works in
        self._code = ObjectCode.from_cubin(cubin, name=name)
        self._kernels: dict[str, object] = {}

    def launch(
        self, kernel: str, grid: tuple[int, int], threads: int, *arguments: Argument
    ) -> None:
        from cuda.core import Device, LaunchConfig, launch

        with torch.cuda.device(self._index):
            Device(self._index).set_current()  # a thread that is new to CUDA has no context
            if kernel not in self._kernels:
                self._kernels[kernel] = self._code.get_kernel(kernel)
            launch(
                _TorchStream(self._index),
                LaunchConfig(grid=grid, block=threads),
                self._kernels[kernel],
                *(_native(argument) for argument in arguments),
            )


def _native(argument: Argument) -> object:
    """As cuda-core takes it: a Python int is an address there, numbers are numpy's."""
    if argument is None:
        return 0
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    return np.int32(argument) if isinstance(argument, int) else np.float32(argument)
