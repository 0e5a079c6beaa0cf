"""A keeps its word: what is projected says what the small image says, and is moved no further."""

import numpy as np
import pytest
import torch

from zoo.nn.projection import Shrinking, axis

TENT = tuple(float(v) for v in (1, 3, 5, 7, 7, 5, 3, 1))
EACH = pytest.mark.parametrize("kernel", [(), (1.0,) * 4, TENT], ids=["box", "ones", "tent"])


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@EACH
def test_what_is_projected_says_what_the_small_image_says(kernel):
    a, f, y = Shrinking(4, kernel), images(2, 3, 16, 24), images(2, 3, 4, 6, seed=1)
    assert (a.down(a.project(f, y)) - y).abs().max() < 1e-12
    single = a.down(a.project(f.float(), y.float())) - y
    assert single.abs().max() < 1e-5


@EACH
def test_projecting_twice_is_projecting_once_and_no_image_of_the_plane_is_nearer(kernel):
    a, f, y = Shrinking(4, kernel), images(2, 3, 16, 24), images(2, 3, 4, 6, seed=1)
    once = a.project(f, y)
    assert (a.project(once, y) - once).abs().max() < 1e-12
    along = a.project(images(2, 3, 16, 24, seed=2), y) - once  # within the plane
    assert ((once - f) * along).sum().abs() < 1e-9


@EACH
def test_a_and_its_inverse_are_the_dense_matrices_and_numpys_pseudo_inverse(kernel):
    a, x = Shrinking(4, kernel), images(1, 1, 8, 12)
    rows, columns = (axis(kernel or (1.0,) * 4, 4, side)[0].numpy() for side in (8, 12))
    dense = np.kron(rows, columns)
    assert np.allclose(dense @ x.numpy().ravel(), a.down(x).numpy().ravel())
    y = images(1, 1, 2, 3)
    assert np.allclose(np.linalg.pinv(dense) @ y.numpy().ravel(), a.up(y).numpy().ravel())


def test_a_filter_is_a_strided_correlation_over_reflected_edges():
    x = images(1, 1, 16, 16)
    taps = np.array(TENT) / np.sum(TENT)
    wide = np.pad(x[0, 0].numpy(), 2, mode="symmetric")
    wanted = [
        [taps @ wide[i : i + 8, j : j + 8] @ taps for j in range(0, 13, 4)] for i in range(0, 13, 4)
    ]
    assert np.allclose(Shrinking(4, TENT).down(x)[0, 0].numpy(), wanted)


@EACH
def test_autocast_does_not_loosen_it(kernel):
    a, f, y = Shrinking(4, kernel), images(2, 3, 16, 16).float(), images(2, 3, 4, 4).float()
    with torch.autocast("cpu", torch.bfloat16):
        made = a.project(f.bfloat16(), y)
        assert made.dtype == torch.float32
        assert (a.down(made) - y).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("kernel", "said"),
    [((1.0,) * 3, "an even number"), ((1.0,) * 16, "a shorter"), ((1.0, -1.0), "sums to 0")],
)
def test_a_filter_without_a_middle_or_an_inverse_is_refused(kernel, said):
    with pytest.raises(ValueError, match=said):
        axis(kernel, 2, 8)
