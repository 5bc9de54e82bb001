"""The conditioned MLP against torch.nn."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from avatar3d import kernels
from avatar3d.kernels import conditioned_mlp
from avatar3d.kernels.mlp import _mlp

# inputs, hidden, outputs, layers, groups, frames
SIZES = [
    (32, 64, 4, 3, 4, 5), (35, 64, 4, 3, 0, 1), (3, 16, 1, 2, 1, 3), (40, 128, 16, 4, 2, 2),
    (1, 32, 3, 3, 3, 1),
]  # fmt: skip


class Problem:
    """Leaves of one dtype, with one loss."""

    def __init__(self, sizes, count: int = 500, dtype=torch.float32, seed: int = 0) -> None:
        inputs, hidden, outputs, layers, groups, frames = sizes
        g = torch.Generator().manual_seed(seed)

        def leaf(*shape: int, scale: float = 1.0) -> Tensor:
            return (scale * torch.randn(*shape, generator=g)).to(dtype).requires_grad_()

        self.inputs = leaf(count, inputs)
        widths = [inputs, *[hidden] * (layers - 1), outputs]
        self.weights = [leaf(b, a, scale=a**-0.5) for a, b in pairwise(widths)]
        self.biases = [leaf(width) for width in widths[1:]]
        self.gates = leaf(count, groups) if groups else None
        self.vectors = leaf(frames, groups, hidden) if groups else None
        self.rows = torch.randint(frames, (count,), generator=g).int() if groups else None
        self.v_outputs = torch.randn(count, outputs, generator=g).to(dtype)

    def leaves(self) -> list[Tensor]:
        leaves = [self.inputs, *self.weights, *self.biases, self.gates, self.vectors]
        return [leaf for leaf in leaves if leaf is not None]

    def solve(self, how: str = "native") -> list[Tensor]:
        """Outputs and gradients of all leaves."""
        out = conditioned_mlp(
            self.inputs, self.weights, self.biases, self.gates, self.vectors, self.rows,
            implementation=how,
        )  # fmt: skip
        return [out.detach(), *torch.autograd.grad(out, self.leaves(), self.v_outputs)]

    def by_torch_nn(self) -> list[Tensor]:
        """As an nn.Sequential on inputs and gated codes, whose first weights are the vectors'."""
        linears = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            linear = nn.Linear(weight.shape[1], weight.shape[0])
            linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(bias)
            linears.append(linear)
        sums = linears[0](self.inputs)
        given = [self.inputs, *(p for layer in linears for p in layer.parameters())]
        if self.gates is not None:
            frames, groups, hidden = self.vectors.shape
            codes = nn.functional.one_hot(self.rows.long(), frames)  # of (gate, frame)
            codes = (self.gates[:, :, None] * codes[:, None]).flatten(1)
            wide = self.vectors.permute(1, 0, 2).reshape(groups * frames, hidden)
            sums = sums + codes @ wide
            given += [self.gates, self.vectors]
        network = nn.Sequential(
            nn.ReLU(), *[m for linear in linears[1:-1] for m in (linear, nn.ReLU())]
        )
        out = linears[-1](network(sums))
        grads = torch.autograd.grad(out, given, self.v_outputs)
        layers = len(linears)
        ordered = [grads[0], *grads[1 : 2 * layers : 2], *grads[2 : 2 * layers + 1 : 2]]
        return [out.detach(), *ordered, *grads[2 * layers + 1 :]]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_outputs_and_gradients_are_those_of_torch_nn(sizes, simd, threads, relative_error):
    truth = Problem(sizes, dtype=torch.float64).by_torch_nn()
    for how in ("native", "torch"):
        for found, expected in zip(Problem(sizes).solve(how), truth, strict=True):
            assert found.shape == expected.shape
            assert relative_error(found, expected) < 2e-5


def test_the_reference_has_the_derivatives_of_finite_differences():
    p = Problem((3, 16, 2, 3, 2, 2), count=5, dtype=torch.float64)

    def run(*leaves: Tensor) -> Tensor:
        inputs, *rest = leaves
        return conditioned_mlp(
            inputs, rest[:3], rest[3:6], rest[6], rest[7], p.rows, implementation="torch"
        )

    assert torch.autograd.gradcheck(run, p.leaves(), eps=1e-7, fast_mode=True)


def test_what_is_left_out_counts_as_nothing(simd):
    p = Problem((20, 32, 3, 3, 2, 1), count=77)
    with torch.no_grad():
        for how in ("native", "torch"):
            arguments = {"implementation": how}
            zeros = [torch.zeros_like(b) for b in p.biases]
            assert torch.allclose(
                conditioned_mlp(p.inputs, p.weights, **arguments),
                conditioned_mlp(p.inputs, p.weights, zeros, **arguments),
            )
            ones = torch.ones_like(p.gates)
            assert torch.allclose(
                conditioned_mlp(p.inputs, p.weights, None, None, p.vectors, **arguments),
                conditioned_mlp(p.inputs, p.weights, zeros, ones, p.vectors, p.rows, **arguments),
            )


def test_threads_do_not_change_a_bit(simd):
    before = kernels.get_num_threads()
    results = []
    for threads in (1, 2, 3, 7):
        kernels.set_num_threads(threads)
        results.append(Problem((32, 64, 4, 3, 3, 40), count=5003).solve())
    kernels.set_num_threads(before)
    for other in results[1:]:
        assert all(a.equal(b) for a, b in zip(results[0], other, strict=True))


def test_a_point_does_not_depend_on_the_others(simd):
    p = Problem((32, 64, 4, 3, 3, 4), count=131)
    with torch.no_grad():
        whole = conditioned_mlp(p.inputs, p.weights, p.biases, p.gates, p.vectors, p.rows)
        for i in (0, 47, 48, 130):
            part = slice(i, i + 1)
            alone = conditioned_mlp(
                p.inputs[part], p.weights, p.biases, p.gates[part], p.vectors, p.rows[part]
            )
            assert alone.equal(whole[part])


def test_a_number_that_is_none_stays_with_its_point(simd, threads):
    clean = Problem((32, 64, 4, 3, 2, 3), count=200).solve()
    p = Problem((32, 64, 4, 3, 2, 3), count=200)
    p.inputs.data[50, 3] = float("nan")
    p.gates.data[120, 1] = float("inf")
    found = p.solve()
    others = torch.ones(200, dtype=torch.bool)
    others[[50, 120]] = False
    for i in (0, 1, len(found) - 2):  # outputs, gradients of inputs and gates
        assert found[i][others].equal(clean[i][others])
    assert found[0][50].isnan().all()


@pytest.mark.parametrize("how", ["native", "torch"])
def test_no_points(how):
    out, v_inputs, *others = Problem(SIZES[0], count=0).solve(how)
    assert out.shape == (0, 4)
    assert v_inputs.shape == (0, 32)
    assert all((g == 0).all() for g in others)


def test_only_what_is_wanted_is_computed(simd):
    p = Problem(SIZES[0])
    whole = dict(zip(map(id, p.leaves()), p.solve()[1:], strict=True))
    for chosen in ([p.inputs], [p.weights[1]], [p.gates, p.biases[0]], [p.vectors]):
        for leaf in p.leaves():
            leaf.requires_grad_(any(leaf is c for c in chosen))
        out = conditioned_mlp(p.inputs, p.weights, p.biases, p.gates, p.vectors, p.rows)
        for leaf, grad in zip(chosen, torch.autograd.grad(out, chosen, p.v_outputs), strict=True):
            assert grad.equal(whole[id(leaf)])


def test_the_operator_obeys_torch():
    p = Problem((4, 16, 2, 2, 2, 3), count=7)
    torch.library.opcheck(
        _mlp.overload, (p.inputs, p.weights, p.biases, p.gates, p.vectors, p.rows)
    )


def test_wrong_arguments_are_named():
    p = Problem(SIZES[0], count=9)

    def run(**changed) -> None:
        arguments = {
            "inputs": p.inputs, "weights": p.weights, "biases": p.biases, "gates": p.gates,
            "vectors": p.vectors, "rows": p.rows,
        }  # fmt: skip
        conditioned_mlp(**(arguments | changed))

    with pytest.raises(ValueError, match=r"weights\[1\] has shape \(63, 64\)"):
        run(weights=[p.weights[0], p.weights[1][1:], p.weights[2]])
    with pytest.raises(ValueError, match=r"biases\[2\] has shape \(5,\), expected \(4,\)"):
        run(biases=[*p.biases[:2], torch.zeros(5)])
    with pytest.raises(ValueError, match="3 weights and 2 biases"):
        run(biases=p.biases[:2])
    with pytest.raises(ValueError, match=r"gates has shape \(9, 3\)"):
        run(gates=p.gates[:, :3])
    with pytest.raises(ValueError, match="rows names frames outside of the 5"):
        run(rows=p.rows + 4)
    with pytest.raises(ValueError, match=r"rows is torch\.int64"):
        run(rows=p.rows.long())
    with pytest.raises(ValueError, match="vectors are of 5 frames; rows must say"):
        run(rows=None)
    with pytest.raises(ValueError, match="mean nothing without vectors"):
        run(vectors=None)
    with pytest.raises(ValueError, match="17 outputs, our kernels take 1 to 16"):
        run(weights=[*p.weights[:2], torch.zeros(17, 64)], biases=None)
    narrow = [torch.zeros(20, 32), torch.zeros(4, 20)]
    with pytest.raises(ValueError, match="20 hidden neurons, our kernels take multiples of 16"):
        conditioned_mlp(p.inputs, narrow)
    assert conditioned_mlp(p.inputs, narrow, implementation="torch").shape == (9, 4)
