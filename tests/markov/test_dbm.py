"""The DBM is a DBM: its energy, the mean-field bound, log Z, the phases of its training."""

import pytest
import torch

from tests.support import Given, fit
from zoo.check.likelihoods import assert_rows_do_not_talk, every_image
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.data.digits import Digits
from zoo.markov.dbm import DBM
from zoo.markov.rbm import RBM
from zoo.nn.boltzmann import ais_log_z, all_states, exact_log_z, reverse_ais_log_z

SPEC = DataSpec((1, 2, 3), 2)
X = every_image(SPEC)


def dbm(scale: float = 0.8, spec: DataSpec = SPEC, **options) -> DBM:
    torch.manual_seed(0)
    model = DBM(spec, **{"hidden1": 4, "hidden2": 3, **options}).double().eval()
    for p in model.parameters():
        p.data.normal_(0, scale)
    return model


def every_state(model: DBM):
    """All 2^13 joint states and their energies, from the formula."""
    v, h1, h2 = (all_states(0, 2**n, n, model.W1) for n in (6, 4, 3))
    i, j, k = (
        t.flatten()
        for t in torch.meshgrid(torch.arange(64), torch.arange(16), torch.arange(8), indexing="ij")
    )
    v, h1, h2 = v[i], h1[j], h2[k]
    w1, w2 = model.W1.detach(), model.W2.detach()
    pairs = torch.einsum("ni,ij,nj->n", v, w1, h1) + torch.einsum("nj,jk,nk->n", h1, w2, h2)
    return (
        v,
        h1,
        h2,
        -(pairs + v @ model.b.detach() + h1 @ model.c1.detach() + h2 @ model.c2.detach()),
    )


@torch.no_grad()
def test_log_z_by_enumerating_one_layer_is_the_sum_over_all_states():
    model = dbm()
    brute = (-every_state(model)[-1]).logsumexp(0)
    torch.testing.assert_close(exact_log_z(*model.machine()), brute)
    torch.testing.assert_close(model.log_z()["log_z"], brute)
    assert model.likelihood_kind == "lower_bound" and "log_z_upper" not in model.log_z()


@torch.no_grad()
def test_exact_probabilities_of_all_images_sum_to_one_and_are_the_marginals():
    model = dbm()
    exact = model.exact_log_prob(X).exp()
    assert exact.sum().item() == pytest.approx(1, abs=1e-10)
    v, _, _, energy = every_state(model)
    joint = (-energy).softmax(0)
    torch.testing.assert_close(
        exact, torch.stack([joint[(v == x).all(1)].sum() for x in X.flatten(1)])
    )


@torch.no_grad()
def test_bound_is_below_the_exact_probability_and_rises_with_every_sweep():
    model, v = dbm(scale=1.2), X.flatten(1)
    exact = model.exact_log_prob(X) + model.log_z()["log_z"]
    bounds = [model.bound(v, *model.mean_field(v, sweeps)) for sweeps in range(12)]
    assert all((b <= exact).all() for b in bounds)
    assert (
        all((b >= a - 1e-12).all() for a, b in zip(bounds[:-1], bounds[1:], strict=True))
        and (bounds[-1] > bounds[0]).any()
    )
    assert (exact - bounds[-1]).min() > 0 and (model.elbo(X) < model.exact_log_prob(X)).all()


@torch.no_grad()
def test_bound_is_the_expected_energy_plus_entropy_under_independent_bits():
    model, v = dbm(), X.flatten(1)[13:14]
    mu1, mu2 = model.mean_field(v, 3)
    total = 0.0
    for h1 in all_states(0, 16, 4, v):
        for h2 in all_states(0, 8, 3, v):
            q = torch.cat(
                [mu1[0] * h1 + (1 - mu1[0]) * (1 - h1), mu2[0] * h2 + (1 - mu2[0]) * (1 - h2)]
            ).prod()
            total = total + q * (-model.energy(v, h1[None], h2[None]) - q.log())
    torch.testing.assert_close(model.bound(v, mu1, mu2), total)


@torch.no_grad()
def test_mean_field_ends_in_a_fixed_point():
    model, v = dbm(), X.flatten(1)
    mu1, mu2 = model.mean_field(v, 200)
    assert (torch.sigmoid(model.c1 + v @ model.W1 + mu2 @ model.W2.T) - mu1).abs().max() < 1e-6
    assert (torch.sigmoid(model.c2 + mu1 @ model.W2) - mu2).abs().max() < 1e-6
    assert model.evaluate(Batch({"x": X}))["mean_field_residual"].max() < 1e-4


@torch.no_grad()
def test_without_the_upper_layer_it_is_the_rbm():
    model, rbm = dbm(), RBM(SPEC, hidden=4).double()
    model.W2.zero_()
    model.c2.zero_()
    for mine, theirs in ((model.W1, rbm.W), (model.b, rbm.b), (model.c1, rbm.c)):
        theirs.copy_(mine)
    torch.testing.assert_close(model.exact_log_prob(X), rbm.log_prob(X))
    torch.testing.assert_close(
        model.elbo(X), rbm.log_prob(X)
    )  # the bound is tight: the posterior is independent
    torch.testing.assert_close(model.encode(X)[:, :4], rbm.encode(X))


@torch.no_grad()
def test_annealing_bounds_log_z_from_both_sides():
    model, base = dbm(scale=1.5), torch.zeros(9).double()
    weight, b, c = model.machine()
    exact, s = exact_log_z(weight, b, c), all_states(0, 2**9, 9, weight)
    p = (s @ b + torch.nn.functional.softplus(c + s @ weight).sum(1)).softmax(0)
    gaps = []
    for temperatures in (1, 5, 25):
        g = torch.Generator().manual_seed(0)
        starts = [s[torch.multinomial(p, 5, replacement=True, generator=g)] for _ in range(100)]
        below = torch.stack(
            [ais_log_z(weight, b, c, base, temperatures, 5, g)[0] for _ in range(100)]
        )
        above = torch.stack(
            [reverse_ais_log_z(weight, b, c, base, temperatures, v, g)[0] for v in starts]
        )
        assert (
            below.mean() < exact + 3 * below.std() / 10
            and above.mean() > exact - 3 * above.std() / 10
        )
        gaps.append((above.mean() - below.mean()).item())
    assert gaps[0] > 0.5 and gaps[0] > 2 * gaps[1] > 4 * gaps[2]


def test_annealed_log_z_of_a_large_machine_brackets_the_value_of_its_working_part():
    model = dbm(scale=0.5, hidden1=24, hidden2=30)
    with torch.no_grad():
        model.W1[:, 12:] = 0
        model.W2[12:] = 0
    found = model.log_z()
    weight, b, c = (t.detach() for t in model.machine())
    exact = exact_log_z(weight[:, :12], b, c[:12]) + torch.nn.functional.softplus(c[12:]).sum()
    assert model.likelihood_kind == "estimate" and 0 < found["log_z_error"] < 0.05
    assert abs(found["log_z"] - exact) < 0.1 and abs(found["log_z_upper"] - exact) < 0.1
    values = model.evaluate(Batch({"x": X}))
    torch.testing.assert_close(
        values["nll_upper_nats"] + model.elbo(X).detach(), values["log_z_upper"] - values["log_z"]
    )


def test_importance_weights_tighten_the_bound_towards_the_exact_value():
    model = dbm(scale=1.2)
    with torch.no_grad():
        exact, bound = model.exact_log_prob(X), model.elbo(X)
        tighter = model.importance_bound(X, samples=500, generator=torch.Generator().manual_seed(0))
    assert (tighter > bound).all() and (tighter - exact).abs().max() < 0.1


def test_joint_gradient_is_data_minus_model_statistics_with_the_mean_field_constant():
    model = dbm(pretrain_steps=0, particles=32)
    model.noise = Noise(1, "test", dtype=torch.float64)
    terms = model.loss(Batch({"x": X[::4]}))
    assert model.phase == "joint"
    terms["loss"].backward()
    v, s = X[::4].flatten(1), model.particles  # moved by the loss
    with torch.no_grad():
        mu1, mu2 = model.mean_field(v, model.sweeps)
        h1 = torch.sigmoid(model.c1 + s[:, :6] @ model.W1 + s[:, 6:] @ model.W2.T)
    for p, plus, minus in (
        (model.W1, v.T @ mu1 / 16, s[:, :6].T @ h1 / 32),
        (model.W2, mu1.T @ mu2 / 16, h1.T @ s[:, 6:] / 32),
        (model.b, v.mean(0), s[:, :6].mean(0)),
        (model.c1, mu1.mean(0), h1.mean(0)),
        (model.c2, mu2.mean(0), s[:, 6:].mean(0)),
    ):
        torch.testing.assert_close(-p.grad, plus - minus)
    assert model.a.grad.abs().max() == 0


def test_gradient_of_the_exact_likelihood_is_data_minus_model_statistics():
    model = dbm()
    v = X.flatten(1)[::4]
    unnormalised = model.exact_log_prob(X[::4]) + model.log_z()["log_z"]
    gradient = torch.autograd.grad(
        unnormalised.mean() - exact_log_z(*model.machine()), [model.W1, model.W2]
    )
    sv, h1, h2, energy = every_state(model)
    joint = (-energy).softmax(0)
    posterior = torch.zeros_like(joint)
    for x in v:
        of = (sv == x).all(1)
        posterior[of] = joint[of] / joint[of].sum() / len(v)
    difference = (posterior - joint)[:, None]
    torch.testing.assert_close(gradient[0], (sv * difference).T @ h1)
    torch.testing.assert_close(gradient[1], (h1 * difference).T @ h2)


@torch.no_grad()
def test_pretraining_hears_its_one_neighbour_twice():
    model, v = dbm(), X.flatten(1)
    torch.testing.assert_close(
        model.bottom_up(v), torch.sigmoid(model.c1 + v @ model.W1 + v @ model.W1)
    )
    assert (model.bottom_up(v) - torch.sigmoid(model.c1 + v @ model.W1)).abs().max() > 0.05
    h2 = all_states(0, 8, 3, v)
    assert (model.top_down(h2) - torch.sigmoid(model.a + h2 @ model.W2.T)).abs().max() > 0.05
    torch.testing.assert_close(model.mean_field(v, 0)[0], model.bottom_up(v))


def test_lower_pretraining_follows_contrastive_divergence_on_the_pair_statistics():
    model, v = dbm(pretrain_steps=5), X.flatten(1)[::4]
    model.noise = Noise(1, "test", dtype=torch.float64)
    model.loss(Batch({"x": X[::4]}))["loss"].backward()
    noise = Noise(1, "test", dtype=torch.float64)
    with torch.no_grad():
        h = torch.sigmoid(2 * v @ model.W1 + model.c1)
        again = noise.bernoulli(torch.sigmoid(noise.bernoulli(h) @ model.W1.T + model.b))
        minus = torch.sigmoid(2 * again @ model.W1 + model.c1)
    torch.testing.assert_close(-model.W1.grad, (v.T @ h - again.T @ minus) / 16)
    assert model.W2.grad.abs().max() == 0 and model.c2.grad.abs().max() == 0


def test_phases_follow_each_other_and_move_their_own_layers():
    model = DBM(SPEC, hidden1=4, hidden2=3, pretrain_steps=3, particles=8)
    data, before, moved = Given(SPEC, X[::3].float()), {}, []
    after = model.after_step

    def watch():
        names = [n for n, p in model.named_parameters() if not torch.equal(p, before.get(n, p))]
        moved.append((model.phase, set(names)))
        before.update({n: p.detach().clone() for n, p in model.named_parameters()})
        after()

    model.after_step = watch
    fit(model, data, 9)
    assert [phase for phase, _ in moved] == ["pre1"] * 3 + ["pre2"] * 3 + ["joint"] * 3
    assert (
        moved[1][1] == {"W1", "b", "c1"}
        and moved[4][1] == {"W2", "a", "c2"}
        and moved[8][1] == {"W1", "W2", "b", "c1", "c2"}
    )
    assert int(model.updates) == 9 and set(model.particles.unique().tolist()) <= {0.0, 1.0}


def test_rates_of_the_phases():
    model = DBM(
        SPEC, hidden1=4, hidden2=3, pretrain_steps=2, pretrain_lr=0.5, lr=0.2, decay_steps=4
    )
    made = model.configure_optimizers()
    rates = []
    for _ in range(9):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([0.5] * 4 + [0.2, 0.15, 0.1, 0.05, 0.0])


def test_particles_move_only_in_the_joint_phase_and_come_back_from_a_checkpoint(tmp_path):
    data = Given(SPEC, X[::3].float())
    model = DBM(SPEC, hidden1=4, hidden2=3, pretrain_steps=2, particles=8)
    trainer = fit(model, data, 4)
    start = model.particles.clone()
    trainer = fit(model, data, 6)
    assert not torch.equal(start, model.particles)
    trainer.save_checkpoint(tmp_path / "6.ckpt")
    other = DBM(SPEC, hidden1=4, hidden2=3, pretrain_steps=2, particles=8)
    fit(other, data, 6, ckpt_path=tmp_path / "6.ckpt")
    assert torch.equal(other.particles, model.particles) and other.phase == "joint"
    kept = model.particles.clone()
    with torch.no_grad():
        model.eval().elbo(X.float())
        model.sample(3)
    assert torch.equal(model.particles, kept)


@torch.no_grad()
@pytest.mark.parametrize("k", [1, 3])
def test_the_negative_phase_is_k_steps_of_the_chains_transition_matrix(k):
    model = dbm(1.5, DataSpec((1, 1, 2), 2), hidden1=2, hidden2=1, particles=40_000, k=k)
    weight, visible, hidden = model.machine()
    s, h = (all_states(0, 2**n, n, weight) for n in (3, 2))
    up, down = torch.sigmoid(hidden + s @ weight), torch.sigmoid(visible + h @ weight.T)

    def pairs(p, states):
        return (p[:, None] * states + (1 - p[:, None]) * (1 - states)).prod(2)

    step = pairs(up, h) @ pairs(down, s)
    powers = {n: torch.linalg.matrix_power(step, n) for n in (1, 3)}
    start = (powers[1] - powers[3]).abs().amax(1).argmax()  # where the number of steps is seen best
    model.particles.copy_(s[start].expand(40_000, -1))
    model.noise = Noise(1, "test", dtype=torch.float64)
    drawn = model._negative()
    shares = (drawn[:, None] == s).all(2).double().mean(0)
    assert (shares - powers[k][start]).abs().max() < 0.012
    assert (shares - powers[4 - k][start]).abs().max() > 0.03


def test_upper_pretraining_sees_draws_of_the_lower_layer():
    model = dbm(pretrain_steps=5)
    model.updates.fill_(5)
    v = X.flatten(1)[9:10].expand(60_000, -1)
    model.noise = Noise(1, "test", dtype=torch.float64)
    model.loss(Batch({"x": v.view(-1, 1, 2, 3)}))["loss"].backward()
    with torch.no_grad():  # exact, over all 16 states of h1, 8 of h2, 16 of h1 again
        h1, h2 = all_states(0, 16, 4, v), all_states(0, 8, 3, v)

        def mass(p, states):
            return (p[:, None] * states + (1 - p[:, None]) * (1 - states)).prod(2)

        first = mass(model.bottom_up(v[:1]), h1)[0]
        up = torch.sigmoid(model.c2 + h1 @ model.W2)
        again = first @ mass(up, h2) @ mass(model.top_down(h2), h1)
        plus, minus = ((p[:, None] * h1).T @ up for p in (first, again))
    torch.testing.assert_close(-model.W2.grad, plus - minus, rtol=0, atol=0.012)


def test_the_residual_is_the_largest_change_that_one_more_sweep_would_make():
    for seed in range(3):
        model = dbm(evaluation_sweeps=1)
        model.c1.data.add_(seed - 1)
        said = model.evaluate(Batch({"x": X}))["mean_field_residual"]
        v = X.flatten(1)
        change = model.mean_field(v, 2)[0] - model.mean_field(v, 1)[0]
        torch.testing.assert_close(said, change.abs().max(1).values)
        assert (change.max(1).values < said).any()  # some of the changes are downwards


@torch.no_grad()
def test_long_chains_have_the_exact_marginals():
    model = dbm(gibbs_steps=200)
    p = model.exact_log_prob(X).exp()
    samples = model.sample(20_000, generator=torch.Generator().manual_seed(0)).flatten(1)
    assert (samples.mean(0) - p @ X.flatten(1)).abs().max() < 0.02
    pair = X.flatten(1)[:, 0] * X.flatten(1)[:, 4]
    assert abs((samples[:, 0] * samples[:, 4]).mean() - pair @ p) < 0.02


@torch.no_grad()
def test_inpainting_keeps_what_is_known_and_follows_the_exact_conditional():
    model = dbm(gibbs_steps=100)
    known = torch.tensor([[[True, True, True], [True, False, False]]])
    x = X[37:38].expand(10_000, 1, 2, 3)
    filled = model.inpaint(x, known, generator=torch.Generator().manual_seed(0))
    assert torch.equal(filled[:, known], x[:, known])
    fits = (X[:, known] == x[0][known]).all(1)
    exact = model.exact_log_prob(X[fits]).softmax(0) @ X[fits][:, ~known]
    assert (filled[:, ~known].mean(0) - exact).abs().max() < 0.02


def test_pretraining_is_worth_two_nats_of_the_bound():
    data = Digits(binarize="threshold", batch_size=50)
    x = data.examples(split="val")["x"]
    values = []
    for pretrain, steps in ((250, 800), (0, 800)):
        torch.manual_seed(0)
        model = DBM(
            data.spec,
            pretrain_steps=pretrain,
            decay_steps=800 - 2 * pretrain,
            temperatures=200,
            gibbs_steps=10,
        )
        fit(model, data, steps)
        with torch.no_grad():
            values.append(model.eval().elbo(x).mean().item())
    assert values[0] > values[1] + 2


def test_rows_do_not_talk():
    assert_rows_do_not_talk(dbm().elbo, X[::6])
