"""FFJORD is FFJORD: a density from the trace along a trajectory, exact or estimated with one draw a
solve, and the way back.
"""

import math

import pytest
import torch
from scipy import stats
from torch import nn

from tests.support import Given, fit
from zoo.check.likelihoods import assert_flow_inverts, assert_rows_do_not_talk, total_density
from zoo.core import Batch, DataSpec
from zoo.core.likelihood import bits_per_dim
from zoo.data.toy2d import Toy2D
from zoo.flow.ffjord import FFJORD, Field

PLANE, IMAGE = DataSpec((2,)), DataSpec((1, 4, 4), 17)


def ffjord(spec: DataSpec = PLANE, scale: float = 0.3, **options) -> FFJORD:
    """With random weights."""
    torch.manual_seed(0)
    model = FFJORD(spec, **{"width": 8, **options}).double().eval()
    for p in model.flows.parameters():
        p.data += scale * torch.randn_like(p)
    return model


class Linear(nn.Module):
    """f = A h."""

    def __init__(self, a: torch.Tensor) -> None:
        super().__init__()
        self.a = nn.Parameter(a)

    def forward(self, t, h, dh=None):
        return h @ self.a.T, None if dh is None else dh @ self.a.T


class Scaling(nn.Module):
    """f = c h."""

    def __init__(self, c: float) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.tensor(c).double())

    def forward(self, t, h, dh=None):
        return self.c * h, None if dh is None else self.c * dh


class Still(nn.Module):
    """f = v, whatever h."""

    def __init__(self, v: float) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.tensor(v).double())

    def forward(self, t, h, dh=None):
        return self.v.expand_as(h), None if dh is None else 0 * dh


@pytest.mark.parametrize("options", [{}, {"solver": "dopri5"}, {"adjoint": True}], ids=str)
def test_linear_dynamics_give_the_gaussian_in_closed_form(options):
    model, a = ffjord(learn_time=True, **options), torch.tensor([[0.4, -1.1], [0.3, -0.7]]).double()
    model.flows[0] = Linear(a)
    model.log_time.data.fill_(math.log(1.5))
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).double()
    back = torch.linalg.matrix_exp(-1.5 * a)
    expected = torch.distributions.MultivariateNormal(
        torch.zeros(2).double(), back @ back.T
    ).log_prob(x)
    torch.testing.assert_close(model.log_prob(x), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        model.forward_flow(x)[1], torch.full((5,), 1.5 * (0.4 - 0.7)).double(), rtol=0, atol=1e-4
    )
    torch.testing.assert_close(
        model.encode(x), x @ torch.linalg.matrix_exp(1.5 * a).T, rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("image", [False, True])
def test_field_carries_the_derivatives_of_autograd(image):
    torch.manual_seed(0)
    field, shape = Field(2, 6, 2, image).double(), (2, 3, 3) if image else (2,)
    h, dh, t = (
        torch.randn(4, *shape).double(),
        torch.randn(3, 4, *shape).double(),
        torch.tensor(0.3).double(),
    )
    f, df = field(t, h, dh)
    for s in range(3):
        reference, derivative = torch.func.jvp(lambda v: field(t, v)[0], (h,), (dh[s],))
        torch.testing.assert_close(f, reference)
        torch.testing.assert_close(df[s], derivative)


@pytest.mark.parametrize("spec", [PLANE, DataSpec((5,)), IMAGE], ids=str)
def test_flow_inverts_and_its_log_det_is_autograds(spec):
    model = ffjord(spec, scale=0.1, steps=20)
    assert_flow_inverts(
        model.forward_flow, model.inverse_flow, torch.randn(2, *spec.shape).double(), tolerance=1e-4
    )


def test_images_of_two_scales_come_back():
    model = ffjord(DataSpec((2, 8, 8), 17), scale=0.1, blocks=2, width=4)
    assert (
        model.plan == ["flow", "flow", "squeeze", "flow", "flow", "split", "flow", "flow"]
        and len(model.flows) == 6
    )
    x = torch.randint(17, (3, 2, 8, 8)).double()
    z = model.encode(x)
    assert z.shape == (3, 128) and model.sizes == [64] and model.top == (4, 4, 4)
    assert torch.equal(model.decode(z), x)
    assert model.evaluate(Batch({"x": x}))["inverse_error"].max() < 1e-3


def test_density_on_the_plane_integrates_to_one():
    assert total_density(ffjord().log_prob, 2, half_width=8, points=161) == pytest.approx(
        1, abs=0.02
    )


@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_mean_of_hutchinson_estimates_is_the_exact_trace(noise):
    model, x = ffjord(DataSpec((5,)), noise=noise), torch.randn(1, 5).double()
    u = torch.rand(2000, 1, 1, 5, generator=torch.Generator().manual_seed(0)).double()
    exact = model.forward_flow(x)[1].item()
    with torch.no_grad():
        estimates = model.forward_flow(x.expand(2000, 5), model.directions(u[:, 0, 0])[None])[1]
    assert estimates.std() > 0
    assert abs(estimates.mean().item() - exact) < 3 * estimates.std().item() / math.sqrt(2000)
    several = model.forward_flow(x.expand(2, 5), model.directions(u[:20, 0].expand(20, 2, 5)))[1]
    torch.testing.assert_close(
        several, estimates[:20].mean().expand(2)
    )  # probes in one solve are averaged


def test_directions_are_fixed_during_a_solve_and_drawn_anew_for_the_next():
    model, x, draws, seen = ffjord(exact=1).train(), torch.randn(6, 2).double(), [], []
    model.noise.dtype = torch.float64
    uniform = model.noise.uniform
    model.noise.uniform = lambda *shape: draws.append(shape) or uniform(*shape)
    model.flows[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[2]))
    model.loss(Batch({"x": x}))
    assert draws == [(6, 2)] and len(seen) == 4 * model.steps and all(e is seen[0] for e in seen)
    assert set(seen[0].unique().tolist()) == {-1, 1}
    first = seen[0]
    model.loss(Batch({"x": x}))
    assert not torch.equal(seen[-1], first)


def test_adjoint_gradients_are_those_through_the_solver():
    x, gradients = torch.randn(16, 2).double(), []
    for adjoint in (False, True):
        model = ffjord(adjoint=adjoint, steps=16)
        model.loss(Batch({"x": x}))["loss"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.flows.parameters()]))
    assert (gradients[0] - gradients[1]).abs().max() < 1e-3 * gradients[0].abs().max()


def test_learned_time_gets_the_same_gradient_from_both():
    x, gradients = torch.randn(16, 2).double(), []
    for adjoint in (False, True):
        model = ffjord(adjoint=adjoint, steps=16, learn_time=True)
        model.loss(Batch({"x": x}))["loss"].backward()
        gradients.append(model.log_time.grad)
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)


def test_dopri5_and_rk4_agree_and_count_their_evaluations():
    x = torch.randn(8, 2).double()
    fixed, adaptive = ffjord(), ffjord(solver="dopri5", tol=1e-7)
    torch.testing.assert_close(fixed.log_prob(x), adaptive.log_prob(x), rtol=0, atol=1e-3)
    assert (
        fixed.evaluate(Batch({"x": x}))["nfe"].tolist() == [4 * 2 * 8] * 8
    )  # four stages, twice eight steps
    assert adaptive.evaluate(Batch({"x": x}))["nfe"][0] > 12


def test_halving_the_step_of_a_trained_model_changes_little_and_it_inverts():
    torch.manual_seed(0)
    data = Toy2D("ring", std=0.2, size=5000)
    model, x = FFJORD(data.spec, width=32), data.examples(500, split="val")["x"]
    fit(model, data, 60)
    model.eval()
    with torch.no_grad():
        coarse = model.log_prob(x)
        assert model.evaluate(Batch({"x": x}))["inverse_error"].max() < 1e-3
        model.steps *= 2
        assert (model.log_prob(x) - coarse).abs().max() < 1e-3


def test_regularisers_are_the_integrals_they_say_and_no_part_of_the_likelihood():
    model, a, x = (
        ffjord(kinetic=0.1, jacobian=0.2),
        torch.tensor([[0.4, -1.1], [0.3, -0.7]]).double(),
        torch.randn(7, 2).double(),
    )
    model.flows[0] = Linear(a)
    terms = model.loss(Batch({"x": x}))
    torch.testing.assert_close(
        terms["jacobian"], a.square().sum(), rtol=1e-6, atol=0
    )  # ‖A‖² for T = 1
    t = (torch.arange(2000).double() + 0.5) / 2000
    speed = torch.stack([x @ torch.linalg.matrix_exp(s * a).T @ a.T for s in t])  # A exp(At) x
    torch.testing.assert_close(terms["kinetic"], speed.square().sum(2).mean(), rtol=1e-4, atol=0)
    torch.testing.assert_close(terms["nll_nats"], -model.log_prob(x).mean())
    torch.testing.assert_close(
        terms["loss"], terms["nll_nats"] + 0.1 * terms["kinetic"] + 0.2 * terms["jacobian"]
    )


def test_regularisers_of_images_are_per_dimension():
    model = ffjord(IMAGE, kinetic=0.1, jacobian=0.2, exact=16)
    x = torch.full((1, 1, 4, 4), 8.0).double().expand(3, -1, -1, -1)
    model.flows[0] = Scaling(c := 0.3)
    terms = model.loss(Batch({"x": x}))
    # f = c h: |f|² of h(t) = h(0) exp(c t), and the Jacobian's squares are 16 c²
    assert terms["jacobian"].item() == pytest.approx(c**2, rel=1e-4)
    assert terms["loss"].item() == pytest.approx(
        (terms["bits_per_dim"] + 0.1 * terms["kinetic"] + 0.2 * terms["jacobian"]).item()
    )
    constant = ffjord(IMAGE, kinetic=0.1, exact=16)
    constant.flows[0] = Still(2.0)
    assert constant.loss(Batch({"x": x}))["kinetic"].item() == pytest.approx(4.0, rel=1e-4)


def test_the_bound_is_the_mean_over_its_draws_and_training_takes_the_steps_that_are_asked():
    model, x = ffjord(IMAGE, scale=0.1, draws=3, steps=3), torch.full((2, 1, 4, 4), 5.0).double()
    u = torch.rand(2, 3, 16, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    each = [model.bound(x, u[:, s].view_as(x)) for s in range(3)]
    said = model.log_prob(x, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(said, torch.stack(each).mean(0))
    asked = [
        int(ffjord(steps=n).train().loss(Batch({"x": torch.zeros(2, 2).double()}))["nfe"])
        for n in (2, 5)
    ]
    assert asked == [8, 20]  # four evaluations a step of rk4


def test_gaussian_directions_are_the_quantiles_of_the_normal_distribution():
    u = torch.linspace(0.01, 0.99, 99).double()
    expected = torch.as_tensor(stats.norm.ppf(u.numpy()))
    torch.testing.assert_close(ffjord(noise="gaussian").directions(u), expected)
    assert set(ffjord().directions(u).tolist()) == {-1.0, 1.0}


def test_the_tolerance_decides_how_often_the_field_is_asked():
    x, asked = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)).double(), []
    for tol in (1e-2, 1e-5, 1e-8):
        model = ffjord(scale=1.0, solver="dopri5", tol=tol).train()
        asked.append(int(model.loss(Batch({"x": x}))["nfe"]))
    assert asked[0] < asked[1] < asked[2]


def test_the_rate_grows_from_its_first_part():
    made = ffjord(lr=0.1, warmup=4).configure_optimizers()
    rates = []
    for _ in range(6):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_the_logged_error_of_the_inverse_is_the_largest_of_a_row():
    model = ffjord(scale=1.5, steps=1)
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)).double()
    said = model.evaluate(Batch({"x": x}))["inverse_error"]
    back = model.inverse_flow(model.forward_flow(x)[0])[0]
    torch.testing.assert_close(said, (back - x).abs().max(1).values)
    assert (said > 1e-6).all()


def test_bits_are_those_of_the_parts_and_the_logit():
    model, x = ffjord(IMAGE, scale=0.1), torch.randint(17, (3, 1, 4, 4)).double()
    parts = model.evaluate(Batch({"x": x}))
    torch.testing.assert_close(
        parts["prior_bpd"] + parts["logdet_per_dim"], bits_per_dim(model.log_prob(x), 16)
    )
    for p in model.parameters():
        p.data.zero_()  # f = 0: y is logit-normal
    p = 0.05 + 0.9 * (x + 0.3) / 17
    pieces = (
        torch.distributions.Normal(0, 1).log_prob(torch.logit(p))
        - torch.log(p * (1 - p))
        + math.log(0.9)
    )
    expected = pieces.flatten(1).sum(1) - 16 * math.log(17)
    torch.testing.assert_close(model.bound(x, torch.full_like(x, 0.3)), expected)


def test_evaluation_beyond_sixty_four_dimensions_is_an_unbiased_estimate():
    spec = DataSpec((70,))
    model, x = ffjord(spec, scale=0.1, steps=2, probes=400), torch.randn(4, 70).double()
    with torch.no_grad():
        estimate, exact = model.log_prob(x), model.log_density(x)
        assert not torch.equal(estimate, exact) and (estimate - exact).abs().max() < 0.5
        assert torch.equal(estimate, model.log_prob(x))  # the noise belongs to the row
        assert not torch.equal(
            estimate, model.log_prob(x, generator=torch.Generator().manual_seed(0))
        )


def test_a_density_needs_no_gradients():
    model, x = ffjord(), torch.randn(4, 2).double()
    expected = model.log_prob(x)
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            value = model.log_prob(x)
        assert not value.requires_grad
        torch.testing.assert_close(value, expected.detach())


def test_rows_do_not_talk_with_fixed_steps():
    assert_rows_do_not_talk(ffjord().log_prob, torch.randn(6, 2).double())


@pytest.mark.parametrize(
    "options",
    [
        {"learn_time": True},
        {"exact": 0, "kinetic": 0.01, "jacobian": 0.01},
        {"adjoint": True},
        {"solver": "dopri5", "tol": 1e-2},
    ],
    ids=str,
)
@pytest.mark.parametrize("spec", [PLANE, IMAGE], ids=str)
def test_every_parameter_moves_with_every_option(options, spec):
    torch.manual_seed(0)
    model = FFJORD(spec, width=4, steps=2, warmup=2, **options)
    x = torch.randn(16, 2) if spec is PLANE else torch.randint(17, (16, 1, 4, 4)).float()
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    fit(model, Given(spec, x, batch_size=8), 3)
    assert [
        name
        for name, p in model.named_parameters()
        if name in before and torch.equal(p, before[name])
    ] == []
    assert model.terms["loss"].isfinite()


@pytest.mark.slow
def test_ring_of_gaussians_is_learnt_to_within_a_quarter_nat_with_every_mode():
    torch.manual_seed(0)
    data = Toy2D("ring", std=0.2)
    model = FFJORD(data.spec)
    fit(model, data, 400, gradient_clip_val=50)
    with torch.no_grad():
        assert -model.eval().log_prob(data.examples(2000, split="val")["x"]).mean() < 1.69 + 0.25
    nearest = torch.cdist(model.sample(2000), data.centres).argmin(1)
    assert torch.bincount(nearest, minlength=8).min() > 100
