"""The Gaussian-Poisson equation, against dense matrices, least squares and scipy's transforms."""

import numpy as np
import pytest
import scipy.fft
import torch

from zoo.nn.poisson import (
    blended,
    composite,
    dct2,
    gradients,
    idct2,
    outflow,
    pyramid,
    sizes,
    smoothed,
    solve,
)

H, W = 9, 11


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix(linear, h=H, w=W):
    """The dense matrix of a linear map of images."""
    basis = torch.eye(h * w, dtype=torch.float64).view(h * w, 1, h, w)
    return np.stack([linear(e[None])[0].flatten().numpy() for e in basis], 1)


def laplacian(h=H, w=W):
    """N by neighbours that are there."""
    n = np.zeros((h * w, h * w))
    for i, j in np.ndindex(h, w):
        for p, q in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            if 0 <= p < h and 0 <= q < w:
                n[i * w + j, i * w + j] += 1
                n[i * w + j, p * w + q] -= 1
    return n


def gaussian(h=H, w=W):
    """Γ by its nine weights over reflected edges."""
    line = np.exp(-np.array([4.0, 0.0, 4.0]) / 2)
    kernel = np.outer(line, line) / line.sum() ** 2
    g = np.zeros((h * w, h * w))
    for i, j in np.ndindex(h, w):
        for a, b in np.ndindex(3, 3):
            p, q = min(max(i + a - 1, 0), h - 1), min(max(j + b - 1, 0), w - 1)
            g[i * w + j, p * w + q] += kernel[a, b]
    return g


@pytest.mark.parametrize("shape", [(8, 8), (9, 11), (1, 6), (7, 2)])
def test_the_transform_is_scipys_and_its_inverse_is(shape):
    x = random(2, 3, *shape)
    wanted = scipy.fft.dctn(x.numpy(), axes=(-2, -1), norm="ortho")
    assert np.allclose(dct2(x).numpy(), wanted, atol=1e-12)
    assert torch.allclose(idct2(dct2(x)), x, atol=1e-12)


def test_the_authors_equation_is_solved_as_a_dense_one():
    low, v = random(1, 1, H, W), (random(1, 1, H, W, seed=1), random(1, 1, H, W, seed=2))
    b = outflow(*v).flatten().numpy()
    for beta in (1.0, 0.3):
        wanted = np.linalg.solve(laplacian() + beta * gaussian(), b + beta * low.flatten().numpy())
        found = solve(low, v, beta, "poisson").flatten().numpy()
        assert np.abs(found - wanted).max() < 1e-8


def test_the_papers_objective_is_solved_as_least_squares():
    low, v = random(1, 1, H, W), (random(1, 1, H, W, seed=1), random(1, 1, H, W, seed=2))
    b = outflow(*v).flatten().numpy()
    for beta in (1.0, 0.3):
        stacked = np.concatenate([laplacian(), beta**0.5 * gaussian()])
        right = np.concatenate([b, beta**0.5 * low.flatten().numpy()])
        wanted = np.linalg.lstsq(stacked, right, rcond=None)[0]
        found = solve(low, v, beta, "least_squares").flatten().numpy()
        assert np.abs(found - wanted).max() < 1e-8
    apart = solve(low, v, 1.0, "least_squares") - solve(low, v, 1.0, "poisson")
    assert apart.abs().max() > 0.01


def test_b_is_the_transpose_of_the_differences_and_sums_to_nothing():
    down, right = (matrix(lambda x, i=i: gradients(x)[i]) for i in (0, 1))
    v = random(1, 2, H, W), random(1, 2, H, W, seed=1)
    b = outflow(*v)
    flat = [u.flatten(2)[0].T.numpy() for u in v]
    assert np.allclose(b.flatten(2)[0].T.numpy(), down.T @ flat[0] + right.T @ flat[1])
    field = outflow(*gradients(random(1, 3, H, W)))
    assert field.sum((2, 3)).abs().max() < 1e-12
    assert np.allclose(down.T @ down + right.T @ right, laplacian())
    assert np.allclose(matrix(lambda x: smoothed(x, 0.5, 1)), gaussian())


@pytest.mark.parametrize("solver", ["poisson", "least_squares"])
def test_of_no_patch_and_its_own_colours_the_destination_comes_back(solver):
    source, x = random(2, 3, H, W, seed=1), random(2, 3, H, W)
    v = composite(source, x, torch.zeros(2, 1, H, W))
    assert (solve(smoothed(x, 0.5, 1), v, 1.0, solver) - x).abs().max() < 1e-10


@pytest.mark.parametrize("solver", ["poisson", "least_squares"])
def test_a_constant_more_in_the_colours_is_one_more_in_the_image(solver):
    low, v = random(1, 3, H, W), gradients(random(1, 3, H, W, seed=1))
    more = solve(low + 0.7, v, 0.4, solver) - solve(low, v, 0.4, solver)
    assert (more - 0.7).abs().max() < 1e-10


def test_gradients_are_the_sources_within_the_mask_alone():
    s, d, mask = random(1, 3, H, W), random(1, 3, H, W, seed=1), torch.zeros(1, 1, H, W)
    mask[..., 2:5, 3:7] = 1
    for of_s, of_d, v in zip(gradients(s), gradients(d), composite(s, d, mask), strict=True):
        inside = mask.bool().expand_as(v)
        assert torch.equal(v[inside], of_s[inside]) and torch.equal(v[~inside], of_d[~inside])


def test_a_pyramid_begins_at_the_networks_size_and_ends_with_the_image():
    x = random(2, 3, 48, 64)
    levels = pyramid(x, 16)
    assert [tuple(v.shape[2:]) for v in levels] == [(16, 16), (32, 32), (48, 64)]
    assert torch.equal(levels[-1], x)
    assert sizes(16, 16, 16) == [(16, 16)] and sizes(8, 8, 16) == [(8, 8)]
    plain = pyramid(torch.full((1, 1, 40, 40), 0.3).double(), 16)
    assert all(torch.allclose(v, torch.full_like(v, 0.3)) for v in plain)
    wanted = scipy.ndimage.gaussian_filter(x[0, 0].numpy(), 1.0, mode="nearest", truncate=4)
    assert np.allclose(smoothed(x, 1.0, 4)[0, 0].numpy(), wanted)


def test_levels_are_solved_one_after_another_and_clipped():
    s, d, mask = random(1, 3, 32, 32), random(1, 3, 32, 32, seed=1), torch.zeros(1, 1, 32, 32)
    mask[..., 8:24, 8:24] = 1
    low = 2 * random(1, 3, 16, 16, seed=2) - 0.5
    found = blended(low, s, d, mask, 0.5)
    (s0, _), (d0, _) = pyramid(s, 16), pyramid(d, 16)
    first = solve(low, composite(s0, d0, mask[..., ::2, ::2]), 0.5, "poisson").clamp(0, 1)
    larger = torch.nn.functional.interpolate(first, (32, 32), mode="bicubic")
    wanted = solve(larger, composite(s, d, mask), 0.5, "poisson")
    assert torch.allclose(found, wanted.clamp(0, 1)) and wanted.max() > 1 > 0 > wanted.min()
    paper = blended(low, s, d, mask, 0.5, "least_squares")
    assert (paper - found).abs().max() > 0.01


def test_single_precision_is_enough_and_half_is_not_used():
    x = random(1, 3, 64, 64)
    low = smoothed(x, 0.5, 1).float()
    assert (solve(low, gradients(x.float()), 1.0, "poisson") - x).abs().max() < 1e-4
    with torch.autocast("cpu", torch.bfloat16):
        made = blended(low.bfloat16(), x.bfloat16(), x.bfloat16(), torch.zeros(1, 1, 64, 64))
        assert made.dtype == torch.float32
