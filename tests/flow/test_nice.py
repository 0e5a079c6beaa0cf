"""NICE is NICE: additive couplings that keep volume, one diagonal scaling, a factorial prior, and
completions by ascent.
"""

import math

import pytest
import torch
from scipy import stats

from tests.support import Given, fit
from zoo.check.likelihoods import assert_flow_inverts, assert_rows_do_not_talk, total_density
from zoo.core import Batch, DataSpec
from zoo.core.likelihood import bits_per_dim
from zoo.flow.nice import NICE
from zoo.nn.prior import Draw

SPEC = DataSpec((1, 3, 3), 17)


def nice(spec: DataSpec = SPEC, scale: float = 0.5, **options) -> NICE:
    """With random weights and scalings."""
    torch.manual_seed(0)
    model = NICE(spec, **{"hidden": 16, "layers": 2, **options})
    for p in model.parameters():
        p.data.normal_(0, scale)
    return model.double().eval()


def images(n: int, spec: DataSpec = SPEC) -> torch.Tensor:
    return torch.randint(
        spec.levels, (n, *spec.shape), generator=torch.Generator().manual_seed(1)
    ).double()


@pytest.mark.parametrize("couplings", [1, 4])
def test_couplings_alone_keep_volume_whatever_the_weights(couplings):
    model = nice(couplings=couplings)
    model.s.data.zero_()
    for v in torch.randn(4, 1, 1, 3, 3).double():
        jacobian = torch.autograd.functional.jacobian(lambda y: model.forward_flow(y)[0], v).view(
            9, 9
        )
        assert torch.linalg.slogdet(jacobian)[1].item() == pytest.approx(0, abs=1e-6)
        assert not torch.equal(jacobian, torch.eye(9).double())


def test_inverse_is_exact_in_single_precision_with_large_weights():
    model = nice(DataSpec((2, 4, 4), 17), scale=0.3).float()
    v = torch.rand(64, 2, 4, 4) - 0.5
    z = model.forward_flow(v)[0]
    assert (z * (-model.s).exp() - v.flatten(1)).abs().max() > 3  # the couplings move points far
    assert (model.inverse_flow(z)[0] - v).abs().max() < 1e-5


@pytest.mark.parametrize("spec", [SPEC, DataSpec((4,)), DataSpec((5,))], ids=str)
def test_flow_inverts_and_its_log_det_is_the_sum_of_s(spec):
    model, v = nice(spec), torch.randn(3, *spec.shape).double()
    assert_flow_inverts(model.forward_flow, model.inverse_flow, v)
    torch.testing.assert_close(model.forward_flow(v)[1], model.s.sum().expand(3))


def test_additive_coupling_keeps_the_even_coordinates_and_shifts_the_odd_ones_by_their_function():
    model = nice(couplings=1)
    v = torch.randn(3, 9).double()
    z = model.forward_flow(v.view(3, 1, 3, 3))[0] * (-model.s).exp()
    torch.testing.assert_close(z[:, 0::2], v[:, 0::2])
    torch.testing.assert_close(z[:, 1::2], v[:, 1::2] + model.couplings[0](v[:, 0::2]))


def test_every_output_depends_on_every_input_after_three_couplings_and_not_after_two():
    def dense(couplings: int) -> float:
        model, seen = nice(couplings=couplings), torch.zeros(9, 9, dtype=torch.bool)
        for v in torch.randn(8, 1, 1, 3, 3).double():
            seen |= (
                torch.autograd.functional.jacobian(lambda y: model.forward_flow(y)[0], v).view(9, 9)
                != 0
            )
        return seen.float().mean().item()

    assert dense(1) < dense(2) < 1
    assert dense(3) == dense(4) == 1


@pytest.mark.parametrize("prior", ["logistic", "gaussian"])
def test_log_prob_counts_prior_scaling_and_dequantisation(prior):
    model, x, u = nice(prior=prior), images(4), torch.rand(4, 1, 3, 3).double()
    z = model.forward_flow((x + u) / 17 - 0.5)[0].detach().numpy()
    reference = {"logistic": stats.logistic, "gaussian": stats.norm}[prior].logpdf(z).sum(1)
    expected = torch.from_numpy(reference) + model.s.sum() - 9 * math.log(17)
    torch.testing.assert_close(model.bound(x, u), expected)


def test_bits_per_dim_of_a_flat_density_are_log2_of_the_levels_over_its_height():
    model = NICE(SPEC).double()
    model.s.data.fill_(
        -9.0
    )  # the logistic density of width e⁹ is ¼ e⁻⁹ everywhere on the unit cube
    height = math.exp(-9) / 4
    bits = bits_per_dim(model.log_prob(images(3)), 9)
    torch.testing.assert_close(
        bits, torch.full((3,), math.log2(17 / height)).double(), rtol=0, atol=1e-6
    )


def test_density_on_the_plane_integrates_to_one():
    model = nice(DataSpec((2,)), scale=0.3)
    assert model.likelihood_kind == "exact_density"
    assert total_density(model.log_prob, 2, half_width=40, points=801) == pytest.approx(1, abs=1e-3)


def test_parts_of_the_bound_add_up_and_the_papers_number_leaves_the_levels_out():
    model, x = nice(), images(5)
    parts, bits = model.evaluate(Batch({"x": x})), bits_per_dim(model.log_prob(x), 9)
    torch.testing.assert_close(parts["prior_bpd"] + parts["logdet_per_dim"], bits)
    torch.testing.assert_close(parts["nll_density"], -model.log_prob(x) - 9 * math.log(17))


@pytest.mark.parametrize("prior", ["logistic", "gaussian"])
def test_samples_of_the_prior_have_its_distribution(prior):
    model = nice(prior=prior)
    z = (
        model.draw_codes(2000, Draw(torch.Generator().manual_seed(0), dtype=model.float_dtype))
        .flatten()
        .numpy()
    )
    assert stats.kstest(z, {"logistic": "logistic", "gaussian": "norm"}[prior]).pvalue > 0.01


def test_every_level_returns_through_the_code():
    model = nice(scale=0.3)
    x = torch.arange(17.0).repeat(9).view(-1, 1, 3, 3).double()
    assert torch.equal(model.reconstruct(x), x)
    torch.testing.assert_close(model.decode(model.encode(x)), x)


def test_spectrum_is_the_inverse_scaling_in_falling_order():
    model = nice()
    assert model.spectrum()[0] == (-model.s).exp().max() and (model.spectrum().diff() <= 0).all()


def test_completion_keeps_what_is_known_and_climbs_to_the_mode():
    # with couplings switched off the pixels are independent and log p is largest at y = 1/2 + v,
    # where z = 0
    model = NICE(SPEC, hidden=4, inpaint_steps=300).double()
    x = images(6)
    known = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]], dtype=torch.bool)[None]
    out = model.inpaint(x, known, generator=torch.Generator().manual_seed(0))
    assert torch.equal(out[:, known], x[:, known])
    assert torch.equal(out[:, ~known], torch.full((6, 4), 8.0).double())  # floor(17/2)
    again = model.inpaint(x, known, generator=torch.Generator().manual_seed(0))
    assert torch.equal(out, again)


def test_completion_adds_gaussian_noise_of_falling_size_to_the_ascent():
    spec = DataSpec((2,))
    model = NICE(spec, hidden=4, inpaint_steps=100, inpaint_step=1.0).double()
    model.s.data.fill_(-20.0)  # so flat that there is nothing to climb
    x, known = torch.zeros(20_000, 2).double(), torch.tensor([True, False])
    out = model.inpaint(x, known, generator=torch.Generator().manual_seed(0))
    steps = sum((10 / (100 + i)) ** 2 for i in range(100))  # .51, and as many of equal size 1
    assert out[:, 1].var().item() == pytest.approx(1 + steps, rel=0.04)


def test_adam_has_the_decays_that_are_asked_for():
    group = nice(beta2=0.9, eps=1e-4, lr=0.1).configure_optimizers().param_groups[0]
    assert (group["lr"], group["betas"], group["eps"]) == (0.1, (0.9, 0.9), 1e-4)


def test_completion_raises_the_likelihood_of_a_nonlinear_model():
    model = nice(scale=0.3)
    model.s.data.fill_(2.0)
    x, known = images(16), torch.zeros(1, 3, 3, dtype=torch.bool)
    known[:, :, 0] = True
    out = model.inpaint(x, known)
    assert (model.log_density((out + 0.5) / 17) >= model.log_density((x + 0.5) / 17)).all()


def test_rows_do_not_talk():
    assert_rows_do_not_talk(nice().log_prob, images(6))


@pytest.mark.parametrize("options", [{}, {"prior": "gaussian", "couplings": 3}], ids=str)
def test_every_parameter_moves(options):
    model = NICE(SPEC, hidden=8, **options)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fit(model, Given(SPEC, images(64).float(), batch_size=16), 6)
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []


def test_other_data_and_values_are_refused_with_a_remedy():
    with pytest.raises(ValueError, match="nice models images with levels"):
        NICE(DataSpec((1, 4, 4)))
    with pytest.raises(ValueError, match="two dimensions"):
        NICE(DataSpec((1,)))
    with pytest.raises(ValueError, match="nice: prior is one of logistic, gaussian, got 'uniform'"):
        NICE(SPEC, prior="uniform")
