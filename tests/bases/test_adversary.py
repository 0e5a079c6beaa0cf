"""The options that stabilise a game: each means what its paper says, in the one place where it
stands.
"""

import csv
import math

import pytest
import torch
from torch import nn

from callbacks.loggers import CSVLogger
from tests.support import Given, fit
from zoo.bases import Adversary, GeneratorModule, LoopOptions, Phase
from zoo.bases.adversary import normalise
from zoo.check.processes import Subject, ddp_differences
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.gan import GAN, LOSSES
from zoo.gan.wgan import WGAN
from zoo.nn.adversarial_losses import divergence

PLANE = DataSpec((2,))


class Watched(Adversary):
    """It writes down what it is shown, by player."""

    def forward(self, *inputs):
        self.game.shown.append(inputs[0].detach().clone())
        return super().forward(*inputs)


class Toy(GeneratorModule):
    """A linear logit against a shift of the noise."""

    adversary = Watched

    def __init__(self, loop: LoopOptions = LoopOptions(), k: int = 1, **options) -> None:
        super().__init__(PLANE, loop, k=k, **options)
        self.g = nn.Linear(2, 2)
        d = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
        self.d = self.adversary(self, d, LOSSES["nonsat"], watch=divergence)
        self.shown: list[torch.Tensor] = []
        self.noise = Noise(0, "test")

    def discriminator_loss(self, batch):
        return self.d.loss((self.scaled(batch["x"]),), (self.g(self.codes(batch.n)),))

    def generator_loss(self, batch):
        return {"loss": self.d.fool(self.g(self.codes(batch.n)))}

    def phases(self):
        return [
            Phase("d", self.discriminator_loss, repeat=self.k, critic=True),
            Phase("g", self.generator_loss, reads=()),
        ]


class Counting(Toy):
    """A generator whose samples are the number of the cycle, in every dimension."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.g.register_forward_hook(lambda g, z, out: out * 0 + self.trainer.global_step)


def plane(n: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))


def real(n: int = 64) -> Batch:
    return Batch({"x": plane(n)})


def data(batch_size: int = 8) -> Given:
    return Given(PLANE, plane(512), batch_size=batch_size)


def test_smoothing_the_real_target_moves_the_best_discriminator_to_a_p_over_p_plus_q():
    toy = Toy(LoopOptions(label_smooth=0.9))
    p, q = torch.rand(
        2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).softmax(1)
    s = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [s],
        max_iter=500,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimiser.zero_grad()
        on_real, on_fake = toy.d.prices(s, s)
        loss = (p * on_real).sum() + (q * on_fake).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    torch.testing.assert_close(s.sigmoid(), 0.9 * p / (p + q), atol=1e-5, rtol=0)


def test_smoothing_leaves_the_price_of_generated_rows_and_the_generators_loss_alone():
    s = torch.linspace(-3, 3, 7)
    smooth, plain = Toy(LoopOptions(label_smooth=0.8)), Toy()
    torch.testing.assert_close(smooth.d.prices(s, s)[1], plain.d.prices(s, s)[1])
    expected = nn.functional.binary_cross_entropy_with_logits(
        s, torch.full_like(s, 0.8), reduction="none"
    )
    torch.testing.assert_close(smooth.d.prices(s, s)[0], expected)
    smooth.load_state_dict(plain.state_dict())
    costs = [model.generator_loss(Batch({}, 8))["loss"] for model in (smooth, plain)]
    assert torch.equal(*costs)


def test_flips_are_drawn_for_each_row_and_step_at_their_rate():
    n, rho = 20_000, 0.2
    toy = Toy(LoopOptions(label_flip=rho))
    s = torch.full((n,), 2.0)
    masks = []
    for _ in range(2):
        targets = (toy.d.price.real(s), toy.d.price.fake(s))
        for price, right, wrong in zip(toy.d.prices(s, s), targets, targets[::-1], strict=True):
            flipped = price == wrong
            assert torch.equal(price, torch.where(flipped, wrong, right))
            masks.append(flipped)
    error = 4 * math.sqrt(rho * (1 - rho) / n)
    assert all(abs(m.float().mean().item() - rho) < error for m in masks)
    both = [(a & b).float().mean().item() for i, a in enumerate(masks) for b in masks[:i]]
    assert all(
        abs(v - rho**2) < error for v in both
    )  # independent of each other, real, generated, and from step to step


@pytest.mark.parametrize(("step", "sigma"), [(0, 0.5), (10, 0.25), (20, 0.0), (30, 0.0)])
def test_instance_noise_falls_linearly_and_is_on_all_that_d_sees(step, sigma):
    quiet, noisy = Toy(), Toy(LoopOptions(instance_noise=0.5, instance_noise_steps=20))
    noisy.load_state_dict(quiet.state_dict())
    noisy.trainer = type("Clock", (), {"global_step": step})()
    for model in (quiet, noisy):
        model.noise = Noise(0, "test")
        model.discriminator_loss(real(4000))
        model.generator_loss(Batch({}, 4000))
    assert len(quiet.shown) == len(noisy.shown) == 3  # real, generated, and the generator's step
    noise = [b - a for a, b in zip(quiet.shown[:2], noisy.shown[:2], strict=True)]
    assert all(v.std().item() == pytest.approx(sigma, rel=0.05) for v in noise)
    if sigma:
        assert abs((noise[0] * noise[1]).mean()) < 0.02 * sigma**2 * 4
        spread = noisy.shown[2].var().item() - quiet.shown[2].var().item()
        assert spread == pytest.approx(sigma**2, rel=0.25)


@pytest.mark.parametrize("prior", ["normal", "uniform", "sphere"])
def test_codes_are_of_the_prior_in_training_and_in_sampling(prior):
    toy = Toy(prior=prior, latent=3)
    z = toy.draw_codes(40_000, toy.noise)
    if prior == "sphere":
        torch.testing.assert_close(z.norm(dim=1), torch.full((40_000,), math.sqrt(3)))
    assert z.mean(0).abs().max() < 0.03 and z.var().item() == pytest.approx(
        1 / 3 if prior == "uniform" else 1.0, rel=0.02
    )


def test_two_time_scales_are_the_two_players_rates():
    toy = Toy(lr_d=4e-3, lr_g=1e-3)
    before = {n: p.detach().clone() for n, p in toy.named_parameters()}
    fit(toy, data(), 1)  # Adam's first step moves each weight by its rate
    for name, p in toy.named_parameters():
        rate = 4e-3 if name.startswith("d.") else 1e-3
        torch.testing.assert_close(
            (p.detach() - before[name]).abs(), torch.full_like(p, rate), rtol=1e-3, atol=0
        )


def test_spectral_norm_gives_every_weight_of_d_the_largest_singular_value_one():
    model = GAN(DataSpec((1, 16, 16), 17), loop=LoopOptions(spectral_norm=True))
    x = torch.randn(4, 1, 16, 16)
    for _ in range(200):  # power iterations, one a pass
        model.d.net(x)
    layers = [m for m in model.d.net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 3
    for layer in layers:
        assert torch.linalg.svdvals(layer.weight.flatten(1))[0].item() == pytest.approx(1, abs=2e-3)
    assert not any(nn.utils.parametrize.is_parametrized(m) for m in model.g.modules())
    other = GAN(DataSpec((1, 16, 16), 17), loop=LoopOptions(spectral_norm=True))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval().d(x), model.eval().d(x))


def test_r1_of_a_linear_discriminator_is_half_gamma_its_squared_weights_and_pulls_them_in():
    toy, plain = Toy(LoopOptions(r1=3.0)), Toy()
    plain.load_state_dict(toy.state_dict())
    w = toy.d.net[0].weight
    terms = toy.discriminator_loss(real())
    assert terms["r1"].item() == pytest.approx(1.5 * w.square().sum().item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(terms["loss"], w)
    (without,) = torch.autograd.grad(
        plain.discriminator_loss(real())["loss"], plain.d.net[0].weight
    )
    torch.testing.assert_close(gradient - without, 3.0 * w.detach(), rtol=1e-4, atol=1e-6)


def test_r1_reads_real_rows_only_and_not_the_generators_turn():
    class Square(Watched):
        def forward(self, x):
            return x.square().sum(1) / 2 + 0 * super().forward(x)  # its gradient is x itself

    class Curved(Toy):
        adversary = Square

    toy, x = Curved(LoopOptions(r1=2.0)), real()["x"]
    terms = toy.discriminator_loss(real())
    assert terms["r1"].item() == pytest.approx(x.square().sum(1).mean().item(), rel=1e-5)
    assert "r1" not in toy.generator_loss(Batch({}, 8))


def test_replay_shows_half_new_and_half_past_samples_and_forgets_the_oldest():
    toy = Counting(LoopOptions(replay=24))
    fit(toy, data(), 8)
    fakes = [s[:, 0] for s in toy.shown[1::3]]  # of each cycle: real, generated, the generator's
    assert (fakes[0] == 0).all()
    for step, fake in enumerate(fakes[1:], 1):
        assert (fake[4:] == step).all(), "the second half is new"
        assert (fake[:4] < step).all() and (fake[:4] >= step - 3).all(), (
            "the first half is of the last 24 rows"
        )
    assert set(toy.d.pool.past0[:, 0].tolist()) == {5.0, 6.0, 7.0}
    assert int(toy.d.pool.seen) == 64 and "d.pool.past0" in toy.state_dict()


def test_replayed_rows_do_not_reach_the_generators_loss():
    toy = Counting(LoopOptions(replay=24))
    fit(toy, data(), 4)
    assert [set(s[:, 0].tolist()) for s in toy.shown[2::3]] == [{0.0}, {1.0}, {2.0}, {3.0}]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"label_smooth": 1.2}, "1.2"),
        ({"label_smooth": 0.4}, "0.4"),
        ({"label_flip": 0.7}, "0.7"),
        ({"instance_noise": -1}, "-1"),
        ({"instance_noise_steps": 0}, "0"),
        ({"r1": -0.5}, "-0.5"),
        ({"replay": -3}, "-3"),
        ({"replay": 8, "accumulate": 2}, "accumulate=1"),
    ],
)
def test_values_that_mean_nothing_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        LoopOptions(**options)


def test_a_game_refuses_options_that_have_no_meaning_in_it():
    with pytest.raises(
        ValueError,
        match=r"loop.label_smooth has no meaning in wgan's game: its loss has no targets; leave it",
    ):
        WGAN(PLANE, loop=LoopOptions(label_smooth=0.9))


def test_spectral_norm_takes_weights_of_every_kind_of_layer_but_the_gains_of_norms():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernels = nn.Parameter(torch.randn(5, 3, 4))

    torch.manual_seed(0)
    layers = {
        "conv1d": nn.Conv1d(3, 6, 3),
        "conv3d": nn.Conv3d(2, 4, 3),
        "linear": nn.Linear(5, 7),
        "transposed": nn.ConvTranspose2d(3, 6, 4, 2, 1),
        "embedding": nn.Embedding(9, 4),
        "bare": Bare(),
    }
    norms = {
        "layer": nn.LayerNorm((3, 4)),  # of two dimensions, and yet no weight
        "batch": nn.BatchNorm2d(3),
        "group": nn.GroupNorm(2, 4),
    }
    net = nn.ModuleDict(layers | norms)
    plain = {n: p.detach().clone() for n, p in net.named_parameters()}
    normalise(net)
    for name, layer in layers.items():
        which = "kernels" if name == "bare" else "weight"
        for _ in range(300):  # power iterations, one a reading
            weight = getattr(layer, which)
        before = plain[f"{name}.{which}"]
        # A row of the matrix is an output: the second dimension of a transposed convolution.
        matrix = before.transpose(0, 1) if name == "transposed" else before
        largest = torch.linalg.svdvals(matrix.flatten(1))[0]
        assert abs(largest - 1) > 0.05  # else it had nothing to do
        torch.testing.assert_close(weight, before / largest, rtol=1e-3, atol=1e-4)
    for name, norm in norms.items():
        assert not nn.utils.parametrize.is_parametrized(norm)
        assert torch.equal(norm.weight, plain[f"{name}.weight"])
    biases = [n for n, _ in net.named_parameters() if n.endswith("bias")]
    assert len(biases) == 7 and not any("parametrizations" in n for n in biases)


def test_spectral_norm_over_another_norm_binds_the_weight_that_is_used():
    torch.manual_seed(0)
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(5, 7)))
    normalise(net)
    for _ in range(300):  # power iterations, one a reading
        weight = net[0].weight
    torch.testing.assert_close(torch.linalg.svdvals(weight)[0].item(), 1.0, rtol=1e-4, atol=0)


def test_targets_are_flipped_where_more_rows_are_made_than_real():
    toy = Toy(LoopOptions(label_flip=0.3))
    real, fake = torch.full((2000,), 3.0), torch.full((6000,), 3.0)
    on_real, on_fake = toy.d.prices(real, fake)
    dear = nn.functional.softplus(torch.tensor(3.0))
    assert (on_real == dear).float().mean().item() == pytest.approx(0.3, abs=0.04)
    assert (on_fake == dear).float().mean().item() == pytest.approx(0.7, abs=0.03)


def test_a_layer_of_two_adversaries_is_divided_once():
    torch.manual_seed(0)
    shared = nn.Linear(5, 7)
    normalise(nn.Sequential(nn.Linear(3, 5), shared))
    normalise(nn.Sequential(nn.Linear(4, 5), shared))
    assert len(shared.parametrizations.weight) == 1


class Pairs(nn.Module):
    """s(x, a) = Σ_i tanh(x W)_i a_i + ‖a‖² ‖x‖²/2: neither input is judged without the other."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[0.3, -0.5, 0.8], [1.1, 0.2, -0.4]]))

    def forward(self, x, a):
        both = ((x @ self.w).tanh() * a).sum(1)
        return both + a.square().sum(1) * x.square().sum(1) / 2


def pairs(n: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, generator=g), torch.randn(n, 3, generator=g)


def judge_of_pairs(**options) -> Adversary:
    toy = Toy(LoopOptions(**options))
    return Adversary(toy, Pairs(), LOSSES["nonsat"], inputs=[(2,), (3,)])


@pytest.mark.parametrize("separate", [True, False])
def test_an_adversary_of_two_inputs_judges_pairs(separate):
    d = judge_of_pairs(separate_batches=separate)
    true, made = pairs(), pairs(seed=1)
    given = [v.clone().requires_grad_() for v in made]
    s, t = d.both(true, given)
    net = d.net
    torch.testing.assert_close(s, net(*true))
    torch.testing.assert_close(t, net(*made))
    assert (net(made[0], true[1]) - t).abs().min() > 1e-3  # another a, another logit
    loss = d.loss(true, given)["loss"]
    softplus = nn.functional.softplus
    torch.testing.assert_close(loss, softplus(-net(*true)).mean() + softplus(net(*made)).mean())
    loss.backward()
    assert all(v.grad is None for v in given), "what was made carries no gradient into D's step"
    maker = d.fool(*given)
    torch.testing.assert_close(maker, softplus(-net(*made)).mean())
    assert all(v.abs().max() > 0 for v in torch.autograd.grad(maker, given))  # it reaches both


def test_r1_of_pairs_is_of_the_first_input_with_the_second_given_as_autograd_has_it():
    d, plain = judge_of_pairs(r1=3.0), judge_of_pairs()
    x, a = pairs()
    w = d.net.w
    slopes = []
    for row, other in zip(x, a, strict=True):  # one row after another
        v = row.clone().requires_grad_()
        s = ((v @ w).tanh() * other).sum() + other.square().sum() * v.square().sum() / 2
        slopes.append(torch.autograd.grad(s, v, create_graph=True)[0].square().sum())
    expected = 1.5 * torch.stack(slopes).mean()
    # ∇_x s = W (a (1 - tanh²(x W))) + ‖a‖² x, on paper.
    gradient = (a * (1 - (x @ w).tanh().square())) @ w.T + a.square().sum(1, keepdim=True) * x
    torch.testing.assert_close(expected, 1.5 * gradient.square().sum(1).mean())
    terms = d.loss((x, a), pairs(seed=1))
    torch.testing.assert_close(terms["r1"], expected)
    without = plain.loss((x, a), pairs(seed=1))["loss"]
    torch.testing.assert_close(terms["loss"] - without, expected)
    (of_d,) = torch.autograd.grad(terms["r1"], w, retain_graph=True)
    torch.testing.assert_close(of_d, torch.autograd.grad(expected, w)[0])


def test_r1_differentiates_the_realness_of_a_net_of_several_outputs():
    toy = Toy(LoopOptions(r1=2.0))
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    d = Adversary(toy, net, LOSSES["nonsat"], realness=lambda out: out[:, 0] - 2 * out[:, 1])
    x = plane(5)
    slopes = []
    for row in x:
        jacobian = torch.autograd.functional.jacobian(net, row)  # (outputs, inputs)
        slopes.append((jacobian[0] - 2 * jacobian[1]).square().sum())
    terms = d.regularised({"loss": torch.zeros(())}, x)
    torch.testing.assert_close(terms["r1"].detach(), torch.stack(slopes).mean())


def test_instance_noise_of_pairs_is_on_the_first_input_only():
    d = judge_of_pairs(instance_noise=0.5)
    (x, a), seen = pairs(4000), []
    d.net.register_forward_pre_hook(lambda net, given: seen.append(given))
    d.both((x, a), (x, a))
    d.see(x, a)
    assert len(seen) == 3
    for noisy, same in seen:
        assert (noisy - x).std().item() == pytest.approx(0.5, rel=0.05)
        assert torch.equal(same, a)


@pytest.mark.parametrize("size", [24, 5])
def test_the_store_keeps_the_tensors_of_a_row_together(size):
    d = Adversary(Toy(LoopOptions(replay=size)), Pairs(), LOSSES["nonsat"], inputs=[(2,), (3,), ()])
    count, gone = 0, 0
    for step in range(6):
        number = torch.arange(count, count + 8)
        count += 8
        d.game.noise = Noise(step, "test")
        shown = d.stored(
            number[:, None].float().expand(8, 2), -number[:, None].float().expand(8, 3), number
        )
        assert [v.shape for v in shown] == [(8, 2), (8, 3), (8,)]
        assert shown[2].dtype == number.dtype
        image, code, label = shown
        assert torch.equal(image, label[:, None].float().expand(8, 2))
        assert torch.equal(code, -label[:, None].float().expand(8, 3))
        assert torch.equal(label[4:], number[4:])
        past = label[:4]
        if step:
            assert (past < number[0]).all() and (past >= number[0] - size).all()
        gone += len(set(past.tolist()) - set(number.tolist()))
    assert gone >= 12  # past rows were shown, and different ones
    kept = [d.pool.get_buffer(f"past{i}") for i in range(3)]
    assert sorted(kept[2].tolist()) == [*range(count - size, count)]
    assert torch.equal(kept[0], kept[2][:, None].expand(size, 2))
    assert torch.equal(kept[1], -kept[2][:, None].expand(size, 3))


@pytest.mark.ddp
def test_all_options_together_train_the_same_on_two_processes():
    options = (
        "label_smooth=0.9",
        "label_flip=0.1",
        "instance_noise=0.3",
        "spectral_norm=true",
        "r1=1",
        "replay=300",
    )
    case = " ".join(["gan", *(f"--model.loop.{option}" for option in options)])
    assert len(Subject.of(*case.split()).model().loop.changed()) == len(options)
    found = ddp_differences((case,), steps=6)[case]
    assert not isinstance(found, str), found
    assert found[0] < 1e-12


@pytest.mark.parametrize(("logger", "seen"), [(True, [5, 10]), (False, [*range(1, 11)])])
def test_what_is_only_watched_is_computed_in_the_steps_that_are_logged(logger, seen, tmp_path):
    model, steps = Toy(), []

    def watch(real, fake):
        steps.append(model.trainer.global_step + 1)
        return divergence(real, fake)

    model.d.watch = watch
    loggers = CSVLogger(tmp_path) if logger else False
    fit(model, Given(PLANE, torch.zeros(8, 2)), 10, logger=loggers, log_every_n_steps=5)
    assert steps == seen
    if logger:
        rows = [*csv.DictReader((tmp_path / "metrics.csv").open())]
        assert [int(r["step"]) for r in rows if r["train/jsd_bound"]] == seen
