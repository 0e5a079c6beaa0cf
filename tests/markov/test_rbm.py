"""The RBM is an RBM: its free energy, both gradients, log Z exact and annealed, the persistent
chains.
"""

import math

import pytest
import torch

from tests.support import Given, fit
from zoo.check.likelihoods import assert_rows_do_not_talk, every_image, total_density, total_mass
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.markov.rbm import RBM
from zoo.nn.boltzmann import ais_log_z, all_states, exact_log_z, free_energy, reverse_ais_log_z

SPEC = DataSpec((1, 3, 3), 2)
SMALL = DataSpec((1, 2, 2), 2)


def rbm(spec: DataSpec = SPEC, hidden: int = 5, scale: float = 0.8, **options) -> RBM:
    torch.manual_seed(0)
    model = RBM(spec, hidden=hidden, **options).double()
    for p in model.parameters():
        p.data.normal_(0, scale)
    return model.eval()


def test_both_enumerations_of_log_z_agree_with_the_sum_over_all_states():
    model = rbm()
    v, h = all_states(0, 2**9, 9, model.W), all_states(0, 2**5, 5, model.W)
    energy = -(v @ model.b)[:, None] - (h @ model.c)[None] - v @ model.W @ h.T
    brute = (-energy).flatten().logsumexp(0)
    torch.testing.assert_close((-free_energy(v, model.W, model.b, model.c)).logsumexp(0), brute)
    torch.testing.assert_close(exact_log_z(model.W, model.b, model.c), brute)
    torch.testing.assert_close(
        exact_log_z(model.W.T, model.c, model.b), brute
    )  # the larger layer as hidden
    assert sorted(map(tuple, v.tolist())) == sorted(
        map(tuple, every_image(SPEC).flatten(1).tolist())
    )


@pytest.mark.parametrize("hidden", [5, 12])
def test_probabilities_of_all_images_sum_to_one_before_and_after_training(hidden):
    model = rbm(hidden=hidden)
    assert model.likelihood_kind == "exact_mass"
    assert total_mass(model.log_prob, SPEC) == pytest.approx(1, abs=1e-8)
    fit(model.float(), Given(SPEC, every_image(SPEC)[::5].float()), 20)
    assert total_mass(model.double().eval().log_prob, SPEC) == pytest.approx(1, abs=1e-6)


def test_annealed_importance_sampling_finds_log_z():
    model = rbm(scale=1.2)
    base, g = torch.randn(9).double(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        estimate, error = ais_log_z(model.W, model.b, model.c, base, 2000, 500, g)
    assert abs(estimate - exact_log_z(model.W, model.b, model.c)) < 0.05 and 0 < error < 0.05


def test_annealing_averages_weights_without_bias_even_with_few_temperatures():
    model, base = rbm(), torch.zeros(9).double()
    with torch.no_grad():
        exact = exact_log_z(model.W, model.b, model.c)
        runs = torch.stack(
            [
                ais_log_z(
                    model.W, model.b, model.c, base, 3, 2000, torch.Generator().manual_seed(s)
                )[0]
                for s in range(20)
            ]
        )
    ratio = (runs - exact).exp()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(20)


def exact_samples(model: RBM, n: int, generator: torch.Generator) -> torch.Tensor:
    images = every_image(SPEC)
    which = torch.multinomial(
        model.log_prob(images).exp(), n, replacement=True, generator=generator
    )
    return images[which].flatten(1)


@torch.no_grad()
def test_annealing_back_from_exact_samples_bounds_log_z_from_above():
    model, base = rbm(scale=1.2), torch.zeros(9).double()
    exact = exact_log_z(model.W, model.b, model.c)
    gaps = []
    for temperatures in (1, 5, 25):
        g = torch.Generator().manual_seed(0)
        below = torch.stack(
            [ais_log_z(model.W, model.b, model.c, base, temperatures, 5, g)[0] for _ in range(100)]
        )
        above = torch.stack(
            [
                reverse_ais_log_z(
                    model.W, model.b, model.c, base, temperatures, exact_samples(model, 5, g), g
                )[0]
                for _ in range(100)
            ]
        )
        assert (
            below.mean() < exact + 3 * below.std() / 10
            and above.mean() > exact - 3 * above.std() / 10
        )
        gaps.append((above.mean() - below.mean()).item())
    assert gaps[0] > 0.5 and gaps[0] > 2 * gaps[1] > 4 * gaps[2]


@torch.no_grad()
def test_annealing_back_estimates_one_over_z_without_bias():
    model, base, g = rbm(), torch.zeros(9).double(), torch.Generator().manual_seed(0)
    exact = exact_log_z(model.W, model.b, model.c)
    runs = [
        reverse_ais_log_z(model.W, model.b, model.c, base, 3, exact_samples(model, 2000, g), g)[0]
        for _ in range(20)
    ]
    ratio = (exact - torch.stack(runs)).exp()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(20) and ratio.std() < 0.2


def test_surrogate_gradient_is_the_explicit_update():
    model, v = rbm(algorithm="cd", k=3), every_image(SPEC)[::25]
    model.noise = Noise(1, "test", dtype=torch.float64)
    model.loss(Batch({"x": v}))["loss"].backward()
    model.noise = Noise(1, "test", dtype=torch.float64)
    plus, minus = v.flatten(1), model._negative(v.flatten(1))
    assert not torch.equal(plus, minus) and not minus.requires_grad
    ph, mh = (torch.sigmoid(u @ model.W.detach() + model.c.detach()) for u in (plus, minus))
    torch.testing.assert_close(
        -model.W.grad, (plus.T @ ph - minus.T @ mh) / len(v), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(-model.b.grad, plus.mean(0) - minus.mean(0), rtol=0, atol=1e-6)
    torch.testing.assert_close(-model.c.grad, ph.mean(0) - mh.mean(0), rtol=0, atol=1e-6)


def test_gradient_of_the_exact_nll_is_model_minus_data_statistics():
    model, data = rbm(SMALL, hidden=3), every_image(SMALL)[[1, 7, 7, 12]]
    nll = (model.free_energy(data.flatten(1)) + exact_log_z(model.W, model.b, model.c)).mean()
    gradient = torch.autograd.grad(nll, [model.W, model.b, model.c])
    v, h = all_states(0, 16, 4, model.W), all_states(0, 8, 3, model.W)
    with torch.no_grad():
        joint = (
            ((v @ model.b)[:, None] + (h @ model.c)[None] + v @ model.W @ h.T)
            .flatten()
            .softmax(0)
            .view(16, 8)
        )
        ph = torch.sigmoid(data.flatten(1) @ model.W + model.c)
    expected = [
        v.T @ joint @ h - data.flatten(1).T @ ph / 4,
        joint.sum(1) @ v - data.flatten(1).mean(0),
        joint.sum(0) @ h - ph.mean(0),
    ]
    for got, want in zip(gradient, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-10)


def test_long_chains_have_the_exact_marginals():
    model = rbm(gibbs_steps=200)
    exact = model.log_prob(every_image(SPEC)).exp() @ every_image(SPEC).flatten(1)
    samples = model.sample(20_000, generator=torch.Generator().manual_seed(0)).flatten(1)
    assert (samples.mean(0) - exact).abs().max() < 0.02
    pair = (
        every_image(SPEC).flatten(1)[:, 0] * every_image(SPEC).flatten(1)[:, 4]
    ) @ model.log_prob(every_image(SPEC)).exp()
    assert abs((samples[:, 0] * samples[:, 4]).mean() - pair) < 0.02


def test_particles_move_are_saved_and_are_not_reset_by_validation(tmp_path):
    data = Given(SPEC, every_image(SPEC)[::5].float())
    model = RBM(SPEC, hidden=5, particles=8)
    start = model.particles.clone()
    trainer = fit(model, data, 3)
    after = model.particles.clone()
    assert not torch.equal(start, after) and set(after.unique().tolist()) <= {0.0, 1.0}
    with torch.no_grad():
        model.evaluate(Batch({"x": data.examples()["x"]}), torch.Generator())
        model.log_prob(data.examples()["x"])
        model.sample(3)
    assert torch.equal(model.particles, after)
    trainer.save_checkpoint(tmp_path / "3.ckpt")
    again = RBM(SPEC, hidden=5, particles=8)
    fit(again, data, 3, ckpt_path=tmp_path / "3.ckpt")
    assert torch.equal(again.particles, after)


def test_persistent_chains_start_where_they_stopped_and_cd_starts_at_the_data():
    model = rbm(particles=6)
    model.W.data.zero_()
    model.b.data.fill_(-50.0)
    v = torch.ones(4, 9).double()
    assert (
        model._negative(v).sum() == 0
        and model.particles.sum() == 0
        and model.particles.shape == (6, 9)
    )
    stuck = rbm(algorithm="cd")
    stuck.W.data.copy_(40 * torch.eye(9, 5))  # each visible unit is held by a hidden copy of itself
    stuck.b.data.fill_(-20.0)
    stuck.c.data.fill_(-20.0)
    x = torch.tensor([[1.0, 0, 1, 0, 1, 0, 0, 0, 0]]).double()
    assert torch.equal(stuck._negative(x), x)


@pytest.mark.parametrize("k", [1, 3])
def test_the_negative_phase_is_k_steps_of_the_chains_transition_matrix(k):
    model = rbm(SMALL, hidden=3, scale=1.5, algorithm="cd", k=k)
    v, h = every_image(SMALL).double().flatten(1), every_image(DataSpec((3,), 2)).double()
    up = torch.sigmoid(model.c + v @ model.W)  # P(h_j = 1 | v)
    down = torch.sigmoid(model.b + h @ model.W.T)

    def all_pairs(p, states):
        return (p[:, None] * states + (1 - p[:, None]) * (1 - states)).prod(2)

    step = all_pairs(up, h) @ all_pairs(down, v)
    exact = torch.linalg.matrix_power(step, k)[5]
    drawn = model._negative(v[5:6].expand(40_000, -1))
    index = (drawn @ torch.tensor([8.0, 4, 2, 1]).double()).long()
    order = (v @ torch.tensor([8.0, 4, 2, 1]).double()).long()
    shares = torch.bincount(index, minlength=16)[order] / 40_000
    assert (shares - exact).abs().max() < 0.012
    assert (shares - torch.linalg.matrix_power(step, 4 - k)[5]).abs().max() > 0.03


def test_what_is_logged_beside_the_likelihood_is_the_sum_over_pixels():
    model, x = rbm(SMALL, hidden=3), every_image(SMALL)[[6]].double()
    v = x.flatten(1)
    mean = torch.sigmoid(model.b + torch.sigmoid(model.c + v @ model.W) @ model.W.T)
    many = model.evaluate(Batch({"x": x.expand(4000, 1, 2, 2)}), torch.Generator().manual_seed(0))
    error = -(v * mean.log() + (1 - v) * (1 - mean).log()).sum()
    assert many["recon_bce"][0].item() == pytest.approx(error.item())
    log_p = model.log_prob(x)
    pseudo = 0.0  # -Σ log P(v_i | the others)
    for i in range(4):
        other = v.clone()
        other[0, i] = 1 - other[0, i]
        pair = torch.cat([log_p, model.log_prob(other.view(1, 1, 2, 2))])
        pseudo -= (log_p - pair.logsumexp(0)).item()
    assert many["pseudo_nll"].mean().item() == pytest.approx(pseudo, rel=0.05)


def test_momentum_and_the_upper_estimate_are_the_ones_that_are_named():
    model = rbm(momentum=0.7, hidden=3)
    assert [g["momentum"] for g in model.configure_optimizers()["optimizer"].param_groups] == [
        0.7,
        0.7,
    ]
    big = rbm(DataSpec((1, 5, 5), 2), hidden=30, scale=0.3, temperatures=50, chains=20)
    x = torch.zeros(2, 1, 5, 5).double()
    said = big.evaluate(Batch({"x": x}))
    upper = big.free_energy(x.flatten(1)) + said["log_z_upper"]
    torch.testing.assert_close(said["nll_upper_nats"], upper)
    assert (said["log_z_upper"] != said["log_z"]).all()


def test_real_samples_have_the_variance_of_the_density():
    model = rbm(DataSpec((2,)), hidden=2, scale=0.5, gibbs_steps=60)
    x = model.sample(20_000, generator=torch.Generator().manual_seed(0))
    axis = torch.linspace(-8, 8, 161).double()
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).view(-1, 2)
    p = model.log_prob(grid).exp()
    p = p / p.sum()
    mean = p @ grid
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(x.var(0), p @ (grid - mean).square(), rtol=0.05, atol=0)


def test_negative_samples_carry_no_gradient_whatever_the_units():
    for spec in (SPEC, DataSpec((2,))):
        for algorithm in ("cd", "pcd"):
            model = rbm(spec, algorithm=algorithm)
            assert not model._negative(torch.ones(4, spec.dim).double()).requires_grad


def test_first_biases_are_the_smoothed_logits_of_the_data():
    model, x = rbm(), every_image(SPEC)[[0, 1, 3]]
    model.initialise_from(Batch({"x": x}))
    mean = (x.flatten(1).sum(0) + 0.5) / 4
    torch.testing.assert_close(torch.sigmoid(model.b), mean)
    assert torch.equal(model.base, model.b)


def test_log_z_is_computed_again_after_the_weights_change():
    model, x = rbm(), every_image(SPEC)[:4]
    before = model.log_prob(x)
    assert torch.equal(model.log_prob(x), before)
    with torch.no_grad():
        model.W.mul_(1.5)
    assert total_mass(model.log_prob, SPEC) == pytest.approx(1, abs=1e-8)


def test_large_machines_say_estimate_and_come_near_the_exact_value():
    big = DataSpec((1, 5, 5), 2)
    model = rbm(big, hidden=25, scale=0.3)
    assert (
        model.likelihood_kind == "estimate" and rbm(big, hidden=20).likelihood_kind == "exact_mass"
    )
    model.W.data[:, 15:] = (
        0  # ten hidden units without weights: log Z is that of 15 units plus Σ softplus(c)
    )
    found = model.log_z()
    value, error = found["log_z"], found["log_z_error"]
    exact = (
        exact_log_z(model.W[:, :15], model.b, model.c[:15])
        + torch.nn.functional.softplus(model.c[15:]).sum()
    )
    assert abs(value - exact) < 0.1 and error > 0 and abs(found["log_z_upper"] - exact) < 0.1
    x = torch.bernoulli(torch.full((3, 1, 5, 5), 0.5)).double()
    values = model.evaluate(Batch({"x": x}), torch.Generator())
    torch.testing.assert_close(
        values["nll_upper_nats"] + model.log_prob(x), values["log_z_upper"] - values["log_z"]
    )


def test_real_vectors_have_a_density_that_integrates_to_one():
    model = rbm(DataSpec((2,)), hidden=4)
    model.shift.copy_(torch.tensor([0.5, -1.0]))
    model.scale.copy_(torch.tensor([0.5, 3.0]))
    assert model.likelihood_kind == "exact_density"
    assert total_density(model.log_prob, 2, half_width=40, points=1601) == pytest.approx(
        1, abs=1e-3
    )
    with torch.no_grad():
        g = torch.Generator().manual_seed(0)
        estimate, _ = ais_log_z(
            model.W, model.b, model.c, torch.zeros(2).double(), 1000, 500, g, gaussian=True
        )
        start = model.sample(500, generator=g)
        v = model.visible_units(start)
        above, _ = reverse_ais_log_z(
            model.W, model.b, model.c, torch.zeros(2).double(), 2000, v, g, gaussian=True
        )
    exact = exact_log_z(model.W, model.b, model.c, gaussian=True)
    assert abs(estimate - exact) < 0.05 and abs(above - exact) < 0.05


def test_inpainting_keeps_what_is_known_and_follows_the_exact_conditional():
    model = rbm(gibbs_steps=100)
    known = torch.zeros(1, 3, 3, dtype=torch.bool)
    known[0, :2] = True
    x = every_image(SPEC)[333:334].expand(10_000, 1, 3, 3)
    filled = model.inpaint(x, known, generator=torch.Generator().manual_seed(0))
    assert torch.equal(filled[:, known], x[:, known])
    images = every_image(SPEC)
    fits = (images[:, known] == x[0][known]).all(1)
    exact = model.log_prob(images[fits]).exp()
    exact = (exact / exact.sum()) @ images[fits][:, ~known]
    assert (filled[:, ~known].mean(0) - exact).abs().max() < 0.02


def test_rate_falls_linearly_to_zero_and_only_weights_decay():
    model = RBM(SPEC, hidden=5, lr=0.1, decay_steps=4)
    made = model.configure_optimizers()
    rates = []
    for _ in range(6):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025, 0.0, 0.0])
    decay = {id(p): g["weight_decay"] for g in made["optimizer"].param_groups for p in g["params"]}
    assert decay == {id(model.W): 1e-4, id(model.b): 0, id(model.c): 0}


def test_rows_do_not_talk():
    assert_rows_do_not_talk(rbm().log_prob, every_image(SPEC)[::60])
