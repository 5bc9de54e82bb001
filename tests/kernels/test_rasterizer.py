"""The native rasteriser against its float64 twin, against finite differences and against itself."""

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avatar3d import kernels
from avatar3d.kernels import RasterStats, rasterize

FORWARD = 2e-6  # absolute; colours and backgrounds are of order 1
GRADIENT = 1e-4  # relative, L2 norm


def run(scene: Any, backend: str, dtype: torch.dtype, seed: int = 0) -> tuple[Any, ...]:
    """image, alpha, gradients by name (the probe's included) of a random linear loss."""
    g = torch.Generator().manual_seed(seed)
    v_image = torch.randn(scene.height, scene.width, 3, generator=g).to(dtype)
    v_alpha = torch.randn(scene.height, scene.width, generator=g).to(dtype)
    leaves, stats = scene.leaves(dtype), RasterStats()
    image, alpha = rasterize(*leaves.arguments(), stats=stats, backend=backend)
    ((image * v_image).sum() + (alpha * v_alpha).sum()).backward()
    gradients = leaves.gradients() | {"mean2d": stats.mean2d_grad}
    return image.detach(), alpha.detach(), gradients, stats.radii


@pytest.fixture(scope="module")
def oracle(make_scene):
    """`oracle(count, size, seed, image_background, scale)`: a scene and its float64 results."""

    @cache
    def solve(count: int, size: tuple[int, int], seed: int, image: bool, scale: float) -> Any:
        scene = make_scene(count, *size, seed, image_background=image)
        scene.scales = scene.scales * scale
        return scene, run(scene, "reference", torch.float64)

    return solve


@pytest.mark.parametrize("image_background", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_the_float64_oracle(
    seed, image_background, simd, threads, oracle, relative_error
):
    scene, truth = oracle(60, (71, 53), seed, image_background, 1.0)
    image, alpha, gradients, radii = run(scene, "native", torch.float32)
    assert (image - truth[0]).abs().max() < FORWARD
    assert (alpha - truth[1]).abs().max() < FORWARD
    for name, gradient in gradients.items():
        assert relative_error(gradient, truth[2][name]) < GRADIENT, name
    assert torch.allclose(radii.double(), truth[3], rtol=1e-5, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(0, 40),
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    seed=st.integers(0, 10_000),
)
def test_agrees_at_any_size(count, width, height, seed, make_scene, steady_pixels):
    scene = make_scene(count, width, height, seed)
    with torch.no_grad():
        image, alpha = rasterize(*scene.arguments(), backend="native")
        truth, true_alpha = rasterize(*scene.leaves(torch.float64).arguments(), backend="reference")
    steady = steady_pixels(scene)
    # hypothesis looks for the worst: a narrow Gaussian at a pixel coordinate rounded to 3e-6
    assert torch.where(steady[..., None], (image - truth).abs(), 0).max() < 5 * FORWARD
    assert torch.where(steady, (alpha - true_alpha).abs(), 0).max() < 5 * FORWARD


@pytest.fixture(scope="module")
def smooth_scene(make_scene):
    """No threshold in reach: wide Gaussians of middling opacity. With its numeric gradients."""
    scene = make_scene(6, 16, 12, 5)
    scene.scales = scene.scales * 0 + torch.tensor([2.0, 2.5, 3.0])
    scene.opacities = 0.2 + 0.3 * scene.opacities
    weight = torch.randn(12, 16, 3, generator=torch.Generator().manual_seed(3)).double()

    def loss(s: Any, backend: str) -> Tensor:
        image, alpha = rasterize(*s.arguments(), backend=backend)
        return (image * weight).sum() + alpha.double().square().sum()

    numeric = {}
    for name in scene.NAMES:
        moving = scene.leaves(torch.float64)
        flat = getattr(moving, name).detach().reshape(-1)
        slopes = torch.zeros_like(flat)
        for i in range(len(flat) if name != "viewmat" else 12):
            sides = []
            for step in (1e-5, -1e-5):
                moved = flat.clone()
                moved[i] += step
                setattr(moving, name, moved.reshape(getattr(scene, name).shape))
                with torch.no_grad():
                    sides.append(loss(moving, "reference"))
            slopes[i] = (sides[0] - sides[1]) / 2e-5
        numeric[name] = slopes.reshape(getattr(scene, name).shape)
    return scene, loss, numeric


def test_gradients_match_finite_differences(simd, smooth_scene, relative_error):
    scene, loss, numeric = smooth_scene
    leaves = scene.leaves(torch.float32)
    loss(leaves, "native").backward()
    for name, slopes in numeric.items():
        assert relative_error(getattr(leaves, name).grad, slopes) < 1e-3, name


@pytest.mark.parametrize("output", [0, 1])
def test_one_output_alone_can_be_differentiated(output, simd, make_scene, relative_error):
    scene = make_scene(40, 50, 37, 4)
    gradients = []
    for backend, dtype in (("native", torch.float32), ("reference", torch.float64)):
        leaves = scene.leaves(dtype)
        rasterize(*leaves.arguments(), backend=backend)[output].square().sum().backward()
        gradients.append(leaves.gradients())
    for name in ("means", "quats", "scales", "opacities", "viewmat"):
        assert relative_error(gradients[0][name], gradients[1][name]) < GRADIENT, name
    if output == 1:
        assert not gradients[0]["colors"].any()
        assert not gradients[0]["background"].any()


def test_one_gaussian_has_the_analytic_alpha(simd):
    """A Gaussian of unit covariance on the axis: alpha = o exp(-r^2 / (2 (s^2 + 0.3)))."""
    size, focal, depth, scale = 15, 100.0, 4.0, 0.08
    K = torch.tensor([[focal, 0, 7.5], [0, focal, 7.5], [0, 0, 1]])
    _, alpha = rasterize(
        torch.tensor([[0.0, 0.0, depth]]),
        torch.tensor([[0.3, -1.0, 0.2, 0.5]]),
        torch.full((1, 3), scale),
        torch.tensor([0.8]),
        torch.ones(1, 3),
        torch.eye(4),
        K,
        size,
        size,
        backend="native",
    )
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    r2 = (x - 7) ** 2 + (y - 7) ** 2
    variance = (focal * scale / depth) ** 2 + 0.3
    expected = 0.8 * torch.exp(-r2 / (2 * variance))
    expected = torch.where(expected >= 1 / 255, expected, 0)
    assert torch.allclose(alpha, expected, atol=2e-6)


def test_blends_front_to_back_and_adds_the_background(simd):
    """Two Gaussians that fill the pixel: the nearer one hides the other, whatever their order."""
    K = torch.tensor([[10.0, 0, 0.5], [0, 10.0, 0.5], [0, 0, 1]])
    image, alpha = rasterize(
        torch.tensor([[0.0, 0, 5], [0, 0, 2]]),
        torch.tensor([[1.0, 0, 0, 0]] * 2),
        torch.full((2, 3), 100.0),
        torch.tensor([0.5, 0.25]),
        torch.tensor([[1.0, 0, 0], [0, 1, 0]]),
        torch.eye(4),
        K,
        1,
        1,
        torch.tensor([0.0, 0, 1]),
        backend="native",
    )
    assert torch.allclose(image[0, 0], torch.tensor([0.75 * 0.5, 0.25, 0.375]), atol=1e-6)
    assert torch.allclose(alpha[0, 0], torch.tensor(0.625), atol=1e-6)


def test_results_do_not_depend_on_threads_or_on_the_run(simd, make_scene):
    scene = make_scene(6000, 150, 130, 1)
    scene.scales = scene.scales * 0.2
    before = kernels.get_num_threads()
    results = []
    for threads in (1, 2, 2, 3):
        kernels.set_num_threads(threads)
        results.append(run(scene, "native", torch.float32))
    kernels.set_num_threads(before)
    image, alpha, gradients, radii = results[0]
    for other in results[1:]:
        assert torch.equal(image, other[0])
        assert torch.equal(alpha, other[1])
        assert torch.equal(radii, other[3])
        for name, value in gradients.items():
            assert torch.equal(value, other[2][name]), name


def test_many_gaussians_agree_with_the_reference(simd, oracle, relative_error):
    """Enough for the threaded sort, tiles with hundreds of entries and pixels that stop early."""
    scene, truth = oracle(5000, (80, 70), 2, False, 0.3)
    image, _, gradients, _ = run(scene, "native", torch.float32)
    difference = (image - truth[0]).abs()
    assert (difference > 1e-5).float().mean() < 1e-3  # a threshold crossed by rounding, rarely
    for name, gradient in gradients.items():
        assert relative_error(gradient, truth[2][name]) < 2e-3, name


def test_backward_survives_copied_saved_tensors(make_scene):
    """Checkpointing and offloading copy what is saved; the native state must be made anew."""
    scene = make_scene(30, 40, 40).leaves(torch.float32)

    def gradient(hooks: bool) -> Tensor:
        copy = lambda t: t.clone()  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(copy, copy) if hooks else torch.enable_grad():
            image, _ = rasterize(*scene.arguments(), backend="native")
        return torch.autograd.grad(image.square().sum(), scene.means)[0]

    assert torch.equal(gradient(True), gradient(False))


def test_two_forwards_before_their_backwards(make_scene):
    a, b = (make_scene(50, 48, 40, s).leaves(torch.float32) for s in (1, 2))
    image_a, _ = rasterize(*a.arguments(), backend="native")
    image_b, _ = rasterize(*b.arguments(), backend="native")
    (first,) = torch.autograd.grad(image_a.sum(), a.means, retain_graph=True)
    (again,) = torch.autograd.grad(image_a.sum(), a.means)
    (other,) = torch.autograd.grad(image_b.sum(), b.means)
    alone, _ = rasterize(*b.arguments(), backend="native")
    assert torch.equal(first, again)
    assert torch.equal(other, torch.autograd.grad(alone.sum(), b.means)[0])


def test_statistics_tell_what_to_split(make_scene):
    """A large Gaussian over a fine pattern is pulled both ways: absolute gradients see it."""
    scene = make_scene(1, 64, 64)
    scene.means, scene.scales = torch.tensor([[0.0, 0, 3]]), torch.full((1, 3), 0.3)
    scene.viewmat, scene.opacities = torch.eye(4), torch.tensor([0.7])
    scene.K = torch.tensor([[64.0, 0, 32], [0, 64, 32], [0, 0, 1]])
    leaves, stats = scene.leaves(torch.float32), RasterStats()
    image, _ = rasterize(*leaves.arguments(), stats=stats)
    sides = torch.where(torch.arange(64) < 32, 1.0, -1.0)
    # a symmetric loss moves nothing as a whole ...
    (image * sides.abs()[None, :, None]).sum().backward()
    variance = (64 * 0.3 / 3) ** 2 + 0.3
    reach = (2 * variance * torch.log(torch.tensor(0.7 * 255))).sqrt()
    assert torch.allclose(stats.radii, reach[None], rtol=1e-4)
    moved = leaves.means.grad[0, :2].norm() * 3 / 64  # back to pixels
    assert moved < 1e-2 * stats.mean2d_grad[0]


class TestPoison:
    """Whatever the values, no crash and no NaN; a poisoned Gaussian is as good as absent."""

    @pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "colors"])
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_non_finite_gaussians_are_absent(self, name, value, simd, make_scene):
        scene = make_scene(20, 40, 33)
        keep = [i for i in range(20) if i != 7]
        clean = make_scene(20, 40, 33)
        for field in ("means", "quats", "scales", "opacities", "colors"):
            setattr(clean, field, getattr(clean, field)[keep])
        getattr(scene, name)[7] = value
        image, alpha, gradients, radii = run(scene, "native", torch.float32)
        expected = run(clean, "native", torch.float32)
        assert torch.equal(image, expected[0])
        assert torch.equal(alpha, expected[1])
        assert radii[7] == 0
        for field in ("means", "quats", "scales", "opacities", "colors"):
            assert not gradients[field][7].any(), field
            assert torch.equal(gradients[field][keep], expected[2][field]), field
        # summed over other batches of sixteen
        assert torch.allclose(gradients["viewmat"], expected[2]["viewmat"], rtol=1e-5, atol=1e-4)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("quats", 0.0), ("scales", 0.0), ("scales", -0.1), ("scales", 1e4), ("scales", 1e20),
            ("opacities", 0.0), ("opacities", 1.0), ("opacities", -1.0), ("opacities", 7.0),
            ("means", 0.0), ("means", 1e30), ("means", -1e30), ("means", 1e-30), ("colors", -3.0),
        ],
    )  # fmt: skip
    def test_extreme_values_stay_finite(self, name, value, simd, make_scene):
        scene = make_scene(25, 37, 21)
        getattr(scene, name)[::3] = value
        image, alpha, gradients, radii = run(scene, "native", torch.float32)
        assert image.isfinite().all()
        assert radii.isfinite().all()
        assert ((alpha >= 0) & (alpha <= 1)).all()
        for field, gradient in gradients.items():
            assert gradient.isfinite().all(), field

    @pytest.mark.parametrize(
        ("name", "value"), [("quats", 0.0), ("scales", 0.0), ("scales", -0.1), ("scales", 1e3)]
    )
    def test_odd_but_legal_values_agree_with_the_oracle(
        self, name, value, simd, make_scene, steady_pixels
    ):
        scene = make_scene(25, 37, 21)
        getattr(scene, name)[::3] = value
        image, _ = rasterize(*scene.arguments(), backend="native")
        truth, _ = rasterize(*scene.leaves(torch.float64).arguments(), backend="reference")
        assert (image - truth)[steady_pixels(scene)].abs().max() < 2e-5

    def test_an_empty_scene_shows_the_background(self, simd, make_scene):
        scene = make_scene(0, 33, 17, image_background=True)
        image, alpha, gradients, _ = run(scene, "native", torch.float32)
        assert torch.equal(image, scene.background)
        assert not alpha.any()
        assert gradients["means"].shape == (0, 3)
        assert not gradients["viewmat"].any()

    def test_a_camera_of_nan_draws_nothing(self, simd, make_scene):
        scene = make_scene(10, 20, 20)
        scene.viewmat[1, 1] = float("nan")
        image, alpha, gradients, _ = run(scene, "native", torch.float32)
        assert torch.equal(image, scene.background.expand(20, 20, 3))
        assert not alpha.any()
        assert not gradients["means"].any()

    def test_everything_behind_the_camera(self, simd, make_scene):
        scene = make_scene(10, 20, 20)
        scene.means[:, 2] *= -1
        _, alpha = rasterize(*scene.arguments(), backend="native")
        assert not alpha.any()

    def test_one_pixel(self, simd, make_scene):
        scene = make_scene(10, 1, 1)
        image, _ = rasterize(*scene.arguments(), backend="native")
        truth, _ = rasterize(*scene.leaves(torch.float64).arguments(), backend="reference")
        assert (image - truth).abs().max() < FORWARD


def test_wrong_arguments_are_named(make_scene):
    good = list(make_scene(5, 8, 8).arguments())

    def expect(index: int, value: Any, words: str) -> None:
        bad = list(good)
        bad[index] = value
        with pytest.raises(ValueError, match=words):
            rasterize(*bad)

    expect(0, torch.zeros(5, 2), r"means has shape \(5, 2\), expected \(\[B,\] N, 3\)")
    expect(1, torch.zeros(4, 4), r"quats has shape \(4, 4\), expected \(\[B,\] N, 4\) with N = 5")
    expect(2, torch.zeros(5, 3, dtype=torch.float64), "scales has dtype torch.float64")
    expect(3, [0.5] * 5, "opacities is list")
    expect(4, torch.zeros(5, 3, device="meta"), "colors is on meta, expected cpu, where means is")
    expect(5, torch.eye(3), r"viewmat .* expected \(\[B,\] 4, 4\)")
    expect(6, torch.eye(4), r"K .* expected \(\[B,\] 3, 3\)")
    expect(7, 0, "width x height is 0 x 8")
    expect(
        9, torch.zeros(4, 8, 3), r"background has shape \(4, 8, 3\), expected \(3,\), \(B, 3\) or"
    )
    with pytest.raises(ValueError, match="backend is 'fast'"):
        rasterize(*good, backend="fast")


def test_non_contiguous_arguments(make_scene):
    scene = make_scene(9, 16, 16)
    expected, _ = rasterize(*scene.arguments())
    scene.means = scene.means.T.contiguous().T
    scene.colors = torch.stack([scene.colors, scene.colors], -1)[..., 0]
    image, _ = rasterize(*scene.arguments())
    assert torch.equal(image, expected)
