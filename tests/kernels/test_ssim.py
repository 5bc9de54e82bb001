"""SSIM and the L1 + SSIM loss against scikit-image, a float64 twin and torch's own checks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avatar3d.kernels import l1_ssim_loss, reference, ssim


def images(height: int, width: int, seed: int = 0, noise: float = 0.2):
    g = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    smooth = torch.stack([torch.sin(0.1 * x), torch.cos(0.07 * y), torch.sin(0.05 * (x + y))], -1)
    target = 0.5 + 0.4 * smooth
    image = (target + noise * torch.randn(target.shape, generator=g)).clamp(0, 1)
    weight = torch.rand(height, width, generator=g)
    return image, target, weight


def test_ssim_is_that_of_scikit_image(simd):
    """In the interior; at borders scikit-image reflects and we pad with zeros."""
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    image, target, _ = images(60, 47)
    options = {
        "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False,
        "data_range": 1.0, "channel_axis": -1, "full": True,
    }  # fmt: skip
    _, expected = metrics.structural_similarity(
        image.double().numpy(), target.double().numpy(), **options
    )
    ours = reference.ssim_map(image.double(), target.double()).numpy()
    assert np.abs(ours - expected)[5:-5, 5:-5].max() < 1e-12

    # The native loss with a weight on the interior alone averages the same values.
    weight = torch.zeros(60, 47)
    weight[5:-5, 5:-5] = 1
    loss = l1_ssim_loss(image, target, weight, ssim_weight=1.0, backend="native")
    inner = (1 - expected)[5:-5, 5:-5].sum() / expected.size
    assert abs(float(loss) - inner) < 2e-6 * inner


def test_identical_images_have_similarity_one(simd):
    image, _, _ = images(31, 40)
    assert abs(float(ssim(image, image, backend="native")) - 1) < 1e-6


@pytest.mark.parametrize("ssim_weight", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("size", [(64, 80), (37, 53), (11, 11), (5, 3), (1, 1), (1, 40), (40, 1)])
def test_loss_and_gradient_agree_with_the_float64_oracle(
    size, ssim_weight, simd, threads, relative_error
):
    image, target, weight = images(*size)
    for w in (None, weight):
        x = image.clone().requires_grad_()
        loss = l1_ssim_loss(x, target, w, ssim_weight, backend="native")
        loss.backward()
        y = image.double().requires_grad_()
        truth = l1_ssim_loss(
            y, target.double(), None if w is None else w.double(), ssim_weight, backend="reference"
        )
        truth.backward()
        assert abs(float(loss.detach() - truth.detach())) < 2e-6 * float(truth.detach())
        assert relative_error(x.grad, y.grad) < 1e-4


def test_flat_images_do_not_lose_digits(simd, relative_error):
    """Bright, nearly flat patches: variances of 1e-6 from second moments near 1."""
    g = torch.Generator().manual_seed(0)
    target = 0.95 + 1e-3 * torch.randn(40, 40, 3, generator=g)
    image = (target + 1e-3 * torch.randn(40, 40, 3, generator=g)).requires_grad_()
    l1_ssim_loss(image, target, None, 1.0, backend="native").backward()
    exact = image.detach().double().requires_grad_()
    l1_ssim_loss(exact, target.double(), None, 1.0, backend="reference").backward()
    assert relative_error(image.grad, exact.grad) < 3e-3


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
def test_any_size(height, width, seed):
    image, target, weight = images(height, width, seed)
    x = image.clone().requires_grad_()
    loss = l1_ssim_loss(x, target, weight, 0.4, backend="native")
    loss.backward()
    y = image.double().requires_grad_()
    truth = l1_ssim_loss(y, target.double(), weight.double(), 0.4, backend="reference")
    truth.backward()
    assert torch.allclose(loss.detach().double(), truth.detach(), rtol=1e-5, atol=1e-9)
    assert (x.grad - y.grad).norm() <= 1e-4 * y.grad.norm() + 1e-9


def test_the_gradient_is_that_of_the_weighted_loss():
    """Finite differences through the whole loss, weights included."""
    image, target, weight = images(9, 8)
    exact = image.double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: reference.l1_ssim_loss(x, target.double(), weight.double(), 0.7), exact
    )


def test_a_pixel_of_weight_zero_moves_for_its_neighbours():
    image, target, _ = images(20, 20)
    weight = torch.zeros(20, 20)
    weight[10, 10] = 1
    x = image.clone().requires_grad_()
    l1_ssim_loss(x, target, weight, 1.0).backward()
    touched = x.grad.abs().sum(-1) > 0
    assert touched[5:16, 5:16].all()
    assert touched.sum() == 11 * 11


def test_results_do_not_depend_on_threads(simd):
    from avatar3d import kernels

    image, target, weight = images(130, 97)
    before = kernels.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        kernels.set_num_threads(threads)
        x = image.clone().requires_grad_()
        loss = l1_ssim_loss(x, target, weight)
        loss.backward()
        results.append((loss.detach(), x.grad))
    kernels.set_num_threads(before)
    for loss, gradient in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(gradient, results[0][1])


def test_the_operator_obeys_torch():
    from avatar3d.kernels.ssim import _l1_ssim

    image, target, weight = images(20, 18)
    image.requires_grad_()
    torch.library.opcheck(_l1_ssim.overload, (image, target, weight, 0.2, True))
    torch.library.opcheck(_l1_ssim.overload, (image.detach(), target, None, 0.2, False))


def test_wrong_arguments_are_named():
    image, target, weight = images(8, 6)
    with pytest.raises(ValueError, match=r"image has shape \(8, 6\), expected \(H, W, 3\)"):
        ssim(image[..., 0], target)
    with pytest.raises(ValueError, match=r"target has shape \(8, 5, 3\), expected \(8, 6, 3\)"):
        ssim(image, target[:, :5])
    with pytest.raises(ValueError, match=r"target has dtype .*uint8"):
        ssim(image, target.to(torch.uint8))
    with pytest.raises(ValueError, match=r"weight has shape \(6, 8\), expected \(H, W\)"):
        l1_ssim_loss(image, target, weight.T)
    with pytest.raises(ValueError, match="at least one pixel"):
        ssim(image[:0], target[:0])
