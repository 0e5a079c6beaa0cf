"""Geometric GAN is a support vector machine: support vectors teach D, samples move along the
normal, and the optimum is a sign.
"""

import pytest
import torch
from sklearn.svm import SVC
from torch import nn

from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.gan import LOSSES
from zoo.gan.geometric_gan import GeometricGAN

PLANE, IMAGES = DataSpec((2,)), DataSpec((1, 8, 8), 17)


def fixed(model: GeometricGAN, fake: torch.Tensor) -> GeometricGAN:
    """The model with a generator of these samples."""
    model.g.forward = lambda z: fake
    model.noise = Noise(0, "test")
    return model


@pytest.mark.parametrize("spec", [PLANE, IMAGES], ids=["plane", "images"])
def test_discriminator_is_a_hyperplane_of_the_features(spec):
    model, x = GeometricGAN(spec).eval(), torch.randn(5, *spec.shape)
    phi = model.features(x)
    assert phi.shape == (5, 128 if spec is PLANE else 32 * 4 * 4) and phi.shape[1] == len(
        model.normal
    )
    torch.testing.assert_close(model.d(x), phi @ model.normal + model.d.net.end.bias)


@pytest.mark.parametrize("side", ["real", "fake"])
def test_only_support_vectors_teach_the_discriminator(side):
    model = GeometricGAN(PLANE, c=None)
    nn.init.normal_(model.d.net.end.weight)  # so that there are rows on both sides of the margin
    x = torch.randn(64, 2)
    s = model.d(x).detach()
    far = s > 1 if side == "real" else s < -1
    assert 0 < far.sum() < 64
    price = model.d.price.real if side == "real" else model.d.price.fake
    gradients = [
        torch.autograd.grad(price(model.d(x[rows])).sum(), [*model.d.net.parameters()])
        for rows in (far, slice(None), ~far)
    ]
    assert all((g == 0).all() for g in gradients[0])
    for everyone, support in zip(gradients[1], gradients[2], strict=True):
        torch.testing.assert_close(everyone, support)
    model.d.both = lambda rows, made: (s, s)
    terms = fixed(model, x).discriminator_loss(Batch({"x": x}))
    assert terms[f"sv_frac_{side}"].item() == pytest.approx(1 - far.float().mean().item())


def test_samples_features_all_move_along_the_normal():
    model, z = GeometricGAN(PLANE), 100 * torch.randn(16, 2)
    phi = model.features(model.g(z)).detach().requires_grad_()
    s = phi @ model.normal + model.d.net.end.bias
    (slope,) = torch.autograd.grad(model.d.price.maker(s).mean(), phi, retain_graph=True)
    torch.testing.assert_close(slope, -model.normal.detach().expand(16, -1) / 16)
    (other,) = torch.autograd.grad(LOSSES["nonsat"].maker(s).mean(), phi)
    assert other.norm(dim=1).std() > 1e-4  # Goodfellow's differ from sample to sample


def test_leaky_loss_is_the_flipped_hinge_with_a_slope_beyond_the_margin():
    s = torch.tensor([-2.0, 0.5, 3.0], requires_grad=True)
    for leak in (0.1, 0.3):
        cost = GeometricGAN(PLANE, g_loss="leaky", leak=leak).d.price.maker(s)
        torch.testing.assert_close(cost, torch.tensor([3.0, 0.5, -2 * leak]))
        (slope,) = torch.autograd.grad(cost.sum(), s)
        torch.testing.assert_close(slope, torch.tensor([-1.0, -1.0, -leak]))


def test_linear_loss_has_the_same_slope_on_both_sides_of_the_margin():
    s = torch.tensor([-2.0, 0.5, 3.0], requires_grad=True)
    cost = GeometricGAN(PLANE).d.price.maker(s)
    assert cost.tolist() == [2.0, -0.5, -3.0]
    assert torch.autograd.grad(cost.sum(), s)[0].tolist() == [-1.0, -1.0, -1.0]


def test_each_optimiser_is_the_one_that_is_asked_for():
    options = {"lr_d": 0.2, "lr_g": 0.1, "beta1": 0.3, "beta2": 0.7}
    adam = GeometricGAN(PLANE, **options).optimisers()
    rmsprop = GeometricGAN(PLANE, optimiser="rmsprop", **options).optimisers()
    for made, kind in ((adam, torch.optim.Adam), (rmsprop, torch.optim.RMSprop)):
        assert all(type(o) is kind for o in made.values())
        assert {p: o.defaults["lr"] for p, o in made.items()} == {"d": 0.2, "g": 0.1}
    assert all(o.defaults["betas"] == (0.3, 0.7) for o in adam.values())


def test_the_machine_has_the_norm_and_the_cycle_the_steps_that_are_asked_for():
    for norm, kind in (("batch", nn.BatchNorm2d), ("layer", nn.GroupNorm)):
        model = GeometricGAN(DataSpec((1, 16, 16), 17), width=4, norm=norm, k=3)
        found = [m for m in model.d.net.modules() if isinstance(m, kind)]
        assert len(found) == 1
        assert [(p.player, p.times(0)) for p in model.phases()] == [("d", 3), ("g", 1)]


def test_best_outputs_are_signs_and_their_loss_is_the_overlap():
    p, q = torch.randn(2, 8, dtype=torch.float64).softmax(1)
    model = GeometricGAN(PLANE, c=None)
    s = torch.linspace(-3, 3, 601, dtype=torch.float64)[:, None]
    costs = p * model.d.price.real(s) + q * model.d.price.fake(
        s
    )  # of each of 601 outputs at each of 8 points
    least, where = costs.min(0)
    assert least.sum().item() == pytest.approx(2 * torch.minimum(p, q).sum().item(), abs=1e-9)
    assert least.sum().item() == pytest.approx(2 - (p - q).abs().sum().item(), abs=1e-9)
    torch.testing.assert_close(s[where, 0], (p - q).sign())


def overlapping(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 2) + torch.tensor([2.0, 1.0]), torch.randn(n, 2) @ torch.tensor(
        [[1.0, 0.8], [0.0, 0.5]]
    )


def separable(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two rectangles at a distance of 2, turned."""
    boxes = torch.rand(2, n, 2) * torch.tensor([2.0, 4.0]) + torch.tensor(
        [[[1.0, -2.0]], [[-3.0, -2.0]]]
    )
    real, fake = boxes @ torch.tensor([[0.8, 0.6], [-0.6, 0.8]])
    return real, fake


@pytest.mark.parametrize(
    ("points", "c"), [(overlapping, 0.3), (overlapping, 10.0), (separable, 30.0)]
)
def test_hyperplane_of_given_features_is_the_support_vector_machines(points, c):
    n = 60
    real, fake = points(n)
    model = GeometricGAN(PLANE, c=c)
    model.d.net.hidden, model.d.net.end = nn.Identity(), nn.Linear(2, 1)
    fixed(model, fake)
    optimiser = torch.optim.Adam(model.d.net.parameters(), 0.1)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.994)
    for _ in range(1000):
        optimiser.zero_grad()
        loss = model.discriminator_loss(Batch({"x": real}))["loss"]
        loss.backward()
        optimiser.step()
        decay.step()
    x, labels = torch.cat([real, fake]), [1] * n + [-1] * n
    machine = SVC(kernel="linear", C=c / n, tol=1e-6).fit(x, labels)
    w = torch.tensor(machine.coef_[0]).float()
    if points is separable:  # no row is within the hard machine's margin
        assert (machine.decision_function(x) * labels).min() > 1 - 1e-3
    assert torch.cosine_similarity(model.normal, w, 0) > 0.99
    assert model.normal.norm().item() == pytest.approx(w.norm().item(), rel=0.03)
    assert model.d.net.end.bias.item() == pytest.approx(machine.intercept_[0], abs=0.03)
    assert model.discriminator_loss(Batch({"x": real}))["margin"].item() == pytest.approx(
        2 / w.norm().item(), rel=0.03
    )


def test_only_the_hyperplanes_normal_is_decayed():
    x, gradients = torch.randn(32, 2), []
    free, tied = GeometricGAN(PLANE, c=None), GeometricGAN(PLANE, c=5.0)
    tied.load_state_dict(free.state_dict())
    for model in (free, tied):
        loss = fixed(model, torch.ones(32, 2)).discriminator_loss(Batch({"x": x}))["loss"]
        gradients.append(
            dict(
                zip(
                    dict(model.d.net.named_parameters()),
                    torch.autograd.grad(loss, [*model.d.net.parameters()]),
                    strict=True,
                )
            )
        )
    for name in gradients[0]:
        extra = (
            free.d.net.end.weight.detach() / 5
            if name == "end.weight"
            else torch.zeros_like(gradients[0][name])
        )
        torch.testing.assert_close(
            gradients[1][name] - gradients[0][name], extra, atol=1e-7, rtol=1e-4
        )


def test_equal_densities_and_a_zero_output_are_an_equilibrium():
    x, model = torch.randn(32, 2), GeometricGAN(PLANE)
    nn.init.zeros_(model.d.net.end.weight)
    nn.init.zeros_(model.d.net.end.bias)
    fixed(model, x)
    loss = model.discriminator_loss(Batch({"x": x}))["loss"]
    assert loss == 2
    assert all(g.abs().max() < 1e-6 for g in torch.autograd.grad(loss, [*model.d.net.parameters()]))
    del model.g.forward
    moves = torch.autograd.grad(
        model.generator_loss(Batch({}, 32))["loss"], [*model.g.parameters()]
    )
    assert all((g == 0).all() for g in moves)


def test_dcgans_start_is_that_of_both_networks():
    model = GeometricGAN(DataSpec((1, 16, 16), 17), width=64, init="dcgan")
    for net in (model.g, model.d.net):
        weights = [
            m.weight for m in net.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))
        ]
        assert len(weights) >= 3 and all(
            w.std().item() == pytest.approx(0.02, rel=0.1) for w in weights
        )


@pytest.mark.parametrize(
    "options", [{"c": 0.0}, {"g_loss": "hinge"}, {"optimiser": "sgd"}, {"init": "normal"}]
)
def test_settings_that_mean_nothing_are_refused(options):
    with pytest.raises(ValueError, match=str(next(iter(options.values())))):
        GeometricGAN(PLANE, **options)
