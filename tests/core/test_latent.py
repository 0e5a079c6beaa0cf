"""Latent tools: paths, the manifold of two dimensions, traversals and vector arithmetic, for every
model that has codes.
"""

import math

import pytest
import torch
from scipy import stats

from tests.callbacks.fakes import same, state
from zoo.autoregressive.made import MADE
from zoo.core import DataSpec
from zoo.core.latent import Codes, arithmetic, between, manifold, traversal, used
from zoo.flow.nice import NICE
from zoo.gan.began import BEGAN
from zoo.gan.dcgan import DCGAN
from zoo.nn.gaussian import kl_standard
from zoo.variational.vae import VAE

SPEC = DataSpec((1, 8, 8), 17, 10, "squares")


@pytest.mark.parametrize("kind", ["linear", "spherical"])
def test_paths_begin_and_end_at_the_codes(kind):
    a, b = torch.randn(2, 5, 16, dtype=torch.float64)
    path = between(a, b, 7, kind)
    assert path.shape == (5, 7, 16)
    torch.testing.assert_close(path[:, 0], a)
    torch.testing.assert_close(path[:, -1], b)


def test_the_arc_keeps_the_norm_where_the_line_loses_it():
    a, b = torch.randn(2, 400, 64, dtype=torch.float64)
    a, b = (8 * v / v.norm(dim=1, keepdim=True) for v in (a, b))
    arc, line = between(a, b, 11, "spherical"), between(a, b, 11, "linear")
    torch.testing.assert_close(
        arc.norm(dim=2), torch.full((400, 11), 8.0).double(), atol=1e-6, rtol=0
    )
    assert line[:, 5].norm(dim=1).mean().item() == pytest.approx(8 * math.sqrt(0.5), rel=0.02)
    angle = torch.acos((arc * arc[:, :1]).sum(2).clamp(-64, 64) / 64)
    torch.testing.assert_close(
        angle.diff(dim=1), (angle[:, -1:] / 10).expand(400, 10), atol=1e-6, rtol=0
    )


def test_opposite_codes_and_unknown_kinds_have_no_path():
    a = torch.randn(2, 4)
    with pytest.raises(ValueError, match=r"opposite.*linear"):
        between(a, -2 * a, 5, "spherical")
    with pytest.raises(ValueError, match="linear or spherical, got 'arc'"):
        between(a, a, 5, "arc")


@pytest.mark.parametrize("n", [5, 20])
def test_the_manifold_is_equally_spaced_in_probability_and_symmetric(n):
    z = manifold(n)
    assert torch.equal(z, -z.flip(0).flip(1)) and (
        n % 2 == 0 or torch.equal(z[n // 2, n // 2], torch.zeros(2).double())
    )
    u = torch.from_numpy(stats.norm.cdf(z.numpy()))
    torch.testing.assert_close(u[0, :, 0], torch.linspace(0.05, 0.95, n, dtype=torch.float64))
    assert (
        torch.equal(z[0, :, 0], z[-1, :, 0]) and (z[:-1, :, 1] > z[1:, :, 1]).all()
    )  # the top row has the large values


def test_a_traversal_changes_one_dimension_only():
    z, values = torch.randn(3, 6), torch.tensor([-1.0, 0.5, 2.0])
    codes = traversal(z, [4, 1], values)
    assert codes.shape == (2, 3, 3, 6)
    for row, j in enumerate((4, 1)):
        others = [i for i in range(6) if i != j]
        assert torch.equal(codes[row, :, :, j], values.expand(3, 3))
        assert torch.equal(codes[row][..., others], z[:, None, others].expand(3, 3, 5))


def test_arithmetic_recovers_the_direction_of_an_attribute():
    g = torch.Generator().manual_seed(0)
    direction = torch.randn(32, generator=g)
    plain = torch.randn(3, 1000, 32, generator=g)
    a, b, c = plain[0] + direction, plain[1], plain[2]
    assert torch.cosine_similarity(a.mean(0) - b.mean(0), direction, dim=0) > 0.99
    torch.testing.assert_close(
        arithmetic(a, b, c), direction + plain[0].mean(0) - plain[1].mean(0) + plain[2].mean(0)
    )


@pytest.mark.parametrize(
    "model",
    [
        VAE(SPEC, latent=3, width=8),
        NICE(SPEC),
        DCGAN(SPEC, latent=3, width=8),
        BEGAN(SPEC, width=8),
    ],
    ids=lambda m: m.entry.name,
)
def test_codes_are_drawn_encoded_and_decoded_without_a_trace(model):
    model.train()
    x, before = torch.randint(17, (2, 1, 8, 8)).float(), state(model)
    codes = Codes(model)
    z = codes.draw(3, seed=1)
    assert torch.equal(z, codes.draw(5, seed=1)[:3]) and not torch.equal(z, codes.draw(3, seed=2))
    images = codes.decode(z[:, None].expand(3, 2, -1))
    assert images.shape == (3, 2, 1, 8, 8) and torch.equal(images[:, 0], images[:, 1])
    assert codes.encodes == ("encode" in model.entry.can)
    if codes.encodes:
        assert codes.encode(x).shape == (2, z.shape[1])
    assert same(before, state(model))


def test_drawn_codes_differ_and_the_first_ones_do_not_hang_on_how_many_are_drawn():
    codes = Codes(DCGAN(SPEC, width=8))
    many = codes.draw(40, seed=3)
    assert len(many.unique(dim=0)) == 40 and torch.equal(codes.draw(5, seed=3), many[:5])
    assert not torch.equal(codes.draw(5, seed=4), many[:5])


def test_codes_of_a_uniform_prior_are_known_to_be_uniform():
    assert Codes(BEGAN(SPEC, width=8)).uniform
    assert (
        Codes(DCGAN(SPEC, prior="uniform", width=8)).uniform
        and not Codes(DCGAN(SPEC, prior="normal", width=8)).uniform
    )


def test_a_model_without_codes_is_refused():
    with pytest.raises(ValueError, match="made has no latent codes"):
        Codes(MADE(DataSpec((1, 8, 8), 2)))
    with pytest.raises(ValueError, match="dcgan has no encoder"):
        Codes(DCGAN(SPEC, width=8)).encode(torch.zeros(1, 1, 8, 8))


def test_what_a_dimension_carries_is_its_mean_kl_where_the_model_has_one():
    model, x = VAE(SPEC, latent=3, width=8).eval(), torch.randint(17, (40, 1, 8, 8)).float()
    carried, what = used(model, x)
    torch.testing.assert_close(carried, kl_standard(*model.posterior(x)).mean(0).detach())
    assert what == "KL"
    flow = NICE(SPEC).eval()
    carried, what = used(flow, x)
    torch.testing.assert_close(carried, flow.encode(x).var(0).detach())
    assert what == "variance"
