"""Functions as operators of torch: `avatar3d::NAME`, with fake tensors, autograd and devices.

What `torch.library.custom_op` does too, but its operators import torch's compiler when first
called, a second of every command, and check at every call what our tests check once.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

__all__ = ["Operator", "operator"]


class Operator:
    """A function of CPU tensors that torch knows by name; call it like the function.

    Args:
        name: without the namespace.
        function: annotated, as its annotations make the operator's schema.
        mutates: names of the arguments that it writes to.

    Attributes:
        overload: the operator as torch has it.
    """

    def __init__(self, name: str, function: Callable[..., Any], mutates: Iterable[str]) -> None:
        self._name = f"avatar3d::{name}"
        schema = torch.library.infer_schema(function, mutates_args=tuple(mutates))
        torch.library.define(self._name, schema, tags=(torch.Tag.pt2_compliant_tag,))
        torch.library.impl(self._name, "CPU", function)
        self.overload = getattr(torch.ops.avatar3d, name).default
        self.__doc__ = function.__doc__

    def __call__(self, *arguments: Any) -> Any:
        return self.overload(*arguments)

    def register_fake(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorates what makes results without numbers, of the right shape."""
        torch.library.register_fake(self._name, function)
        return function

    def register_kernel(self, device: str, function: Callable[..., Any]) -> None:
        """The same on another kind of device, such as "cuda"."""
        torch.library.impl(self._name, device, function)

    def register_autograd(
        self, backward: Callable[..., Any], *, setup_context: Callable[..., None]
    ) -> None:
        """Make it differentiable; see `torch.library.register_autograd`."""
        torch.library.register_autograd(self._name, backward, setup_context=setup_context)


def operator(name: str, *, mutates: Iterable[str] = ()) -> Callable[[Callable[..., Any]], Operator]:
    """Decorates a function of CPU tensors that becomes the operator `avatar3d::NAME`."""
    return lambda function: Operator(name, function, mutates)
