"""CGAN is CGAN: the class reaches both players, the same one, and what it is worth is the joint
density ratio.
"""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.support import Given, fit
from zoo.core import Batch, DataSpec
from zoo.core.draw import draw
from zoo.core.noise import Noise
from zoo.gan.cgan import CGAN, Joined
from zoo.nn.maxout import Maxout

IMAGES, PLANE = DataSpec((1, 8, 8), 17, 10), DataSpec((2,), None, 11)


def make(spec: DataSpec = PLANE, **options) -> CGAN:
    torch.manual_seed(0)
    return CGAN(spec, **options)


def batch(spec: DataSpec, n: int = 22) -> Batch:
    g = torch.Generator().manual_seed(1)
    x = (
        torch.randn(n, *spec.shape, generator=g)
        if spec.levels is None
        else torch.randint(17, (n, *spec.shape), generator=g).float()
    )
    return Batch({"x": x, "y": torch.arange(n) % spec.num_classes})


class Table(nn.Module):
    """A free logit for each pair of a value and a class."""

    def __init__(self, values: int, classes: int) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.zeros(values, classes, dtype=torch.float64))

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return self.s[x.long().squeeze(1), c.argmax(1)]


@pytest.mark.parametrize(("spec", "arch"), [(PLANE, "mlp"), (IMAGES, "mlp"), (IMAGES, "conv")])
def test_the_class_changes_what_is_made_and_what_is_thought_of_it(spec, arch):
    model, rows = make(spec, arch=arch), batch(spec)
    x, c = model.scaled(rows["x"]), model.one_hot(rows["y"])
    other = model.one_hot((rows["y"] + 1) % spec.num_classes)
    z = torch.randn(len(x), model.latent)
    assert ((model.g(z, c) - model.g(z, other)).flatten(1).abs().amax(1) > 1e-4).all()
    assert ((model.d(x, c) - model.d(x, other)).abs() > 1e-5).all()


def test_the_best_discriminator_knows_the_joint_ratio_so_shuffled_labels_are_seen():
    p = torch.tensor([[4.0, 0.0], [0.0, 4.0], [2.0, 6.0]], dtype=torch.float64) / 16  # p(x, y)
    shuffled = p.sum(1, keepdim=True) * p.sum(0)  # both marginals right, independent
    values = {}
    for name, q in (("right", p), ("shuffled", shuffled)):
        rows = {
            k: [
                (x, y)
                for x in range(3)
                for y in range(2)
                for _ in range(round(float(v[x, y]) * 256))
            ]
            for k, v in (("p", p), ("q", q))
        }
        model = make(DataSpec((1,), None, 2), latent=1).double()
        model.d.net = Table(3, 2)
        real, fake = (torch.tensor(rows[k], dtype=torch.float64) for k in ("p", "q"))

        def loss(model=model, real=real, fake=fake):
            on_real, on_fake = (
                model.d(rows[:, :1], model.one_hot(rows[:, 1].long())) for rows in (real, fake)
            )
            return model.d.price.real(on_real).mean() + model.d.price.fake(on_fake).mean()

        optimiser = torch.optim.LBFGS(
            model.d.net.parameters(), max_iter=500, line_search_fn="strong_wolfe"
        )

        def closure(optimiser=optimiser, loss=loss):
            optimiser.zero_grad()
            value = loss()
            value.backward()
            return value

        optimiser.step(closure)
        values[name] = -loss().item()
        both = (p > 0) & (q > 0)
        torch.testing.assert_close(
            model.d.net.s.detach()[both], (p / q).log()[both], atol=1e-3, rtol=0
        )
    m = (p + shuffled) / 2
    divergence = (
        torch.special.xlogy(p, p / m) + torch.special.xlogy(shuffled, shuffled / m)
    ).sum().item() / 2
    assert values["right"] == pytest.approx(-math.log(4), abs=1e-6)
    assert (
        values["shuffled"] == pytest.approx(-math.log(4) + 2 * divergence, abs=1e-4)
        and divergence > 0.05
    )


@pytest.mark.parametrize("separate", [True, False])
def test_the_class_of_a_made_example_is_the_one_the_discriminator_is_told(separate):
    model, told, asked = make(loop={"separate_batches": separate}), [], []
    model.g.register_forward_pre_hook(lambda _, args: asked.append(args[1].argmax(1).tolist()))
    model.d.net.register_forward_pre_hook(lambda _, args: told.append(args[1].argmax(1).tolist()))
    rows = batch(PLANE)
    model.discriminator_loss(rows)
    of_fakes = told[-1] if separate else told[-1][22:]
    assert asked == [rows["y"].tolist()] and of_fakes == asked[0]
    model.generator_loss(rows)
    assert asked[-1] == told[-1] == rows["y"].tolist()


def test_the_generators_turn_has_labels_of_a_minibatch_of_its_own():
    model, asked = make(k=2), []
    model.g.register_forward_pre_hook(lambda _, args: asked.append(args[1].argmax(1).tolist()))
    x, y = torch.randn(66, 2), torch.randint(11, (66,), generator=torch.Generator().manual_seed(2))
    fit(model, Given(PLANE, x, y, batch_size=22), 1)
    assert len(asked) == 3 and sorted(v for rows in asked for v in rows) == sorted(y.tolist())
    reads = {phase.player: phase.reads for phase in model.phases()}
    assert reads == {"d": ("x", "y"), "g": ("y",)}  # G is told the class and sees no data


def test_eleven_classes_are_eleven_columns():
    model = make().eval()
    told = []
    model.g.register_forward_pre_hook(lambda _, args: told.append(args[1]))
    draw(model, 64, 0)
    assert (
        told[0].shape == (64, 11)
        and (told[0].sum(1) == 1).all()
        and set(told[0].argmax(1).tolist()) == set(range(11))
    )
    mixed = torch.rand(5, 11)
    assert torch.equal(model.one_hot(mixed), mixed)
    with pytest.raises(TypeError, match="'y'"):
        model.from_codes(torch.randn(3, 2))


def test_real_examples_with_wrong_labels_count_as_fake():
    rows, losses = batch(PLANE), {}
    for mismatch in (False, True):
        model, told = make(mismatch=mismatch), []
        model.noise = Noise(3, "test")
        model.d.net.register_forward_pre_hook(
            lambda _, args, told=told: told.append((args[0], args[1].argmax(1)))
        )
        losses[mismatch] = model.discriminator_loss(rows)
    (x, wrong) = told[2]
    assert (
        torch.equal(x, rows["x"])
        and (wrong != rows["y"]).all()
        and len(set(((wrong - rows["y"]) % 11).tolist())) > 4
    )
    extra = F.softplus(model.d(x, model.one_hot(wrong))).mean()
    torch.testing.assert_close(losses[True]["loss"], losses[False]["loss"] + extra)
    assert torch.equal(losses[True]["jsd_bound"], losses[False]["jsd_bound"])
    right = (model.d(x, model.one_hot(wrong)) < 0).float().mean()
    assert losses[True]["d_acc_mismatched"] == right


def test_a_mismatched_row_is_right_where_it_is_not_taken_for_real():
    model = make(mismatch=True)
    out = torch.tensor([-1.0, -2, 3, -4, 5, -6, -7, -8, -9, -10, -11] * 2)
    model.d.see = lambda x, c: out
    assert model.discriminator_loss(batch(PLANE))["d_acc_mismatched"].item() == pytest.approx(
        9 / 11
    )


def test_samples_are_of_the_class_that_is_asked_for():
    for spec in (PLANE, IMAGES):
        model, y = make(spec).eval(), torch.tensor([3, 0, 9])
        drawn = model.sample(3, y=y, generator=torch.Generator().manual_seed(5))
        z = torch.randn(3, model.latent, generator=torch.Generator().manual_seed(5))
        made = model.g(z, torch.eye(spec.num_classes)[y])
        if spec is IMAGES:  # a sigmoid end
            assert torch.equal(drawn, (16 * made).round())
        else:
            assert torch.equal(drawn, made)


@pytest.mark.parametrize(("arch", "low"), [("mlp", 0.0), ("conv", -1.0)])
def test_the_discriminator_sees_images_in_the_units_in_which_they_are_made(arch, low):
    model, seen, rows = make(IMAGES, arch=arch), [], batch(IMAGES, 6)
    model.d.net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.discriminator_loss(rows)
    torch.testing.assert_close(seen[0], low + (1 - low) * rows["x"] / 16)


@pytest.mark.parametrize("g_loss", ["nonsat", "minimax"])
def test_the_generators_loss_is_the_one_that_is_asked_for(g_loss):
    model, rows = make(g_loss=g_loss), batch(PLANE)
    model.noise = Noise(3, "test")
    loss = model.generator_loss(rows)["loss"]
    c = torch.eye(11)[rows["y"]]
    p = model.d.net(model.g(Noise(3, "test").normal(22, 2), c), c).sigmoid()
    expected = -p.log().mean() if g_loss == "nonsat" else (1 - p).log().mean()
    torch.testing.assert_close(loss, expected)


def test_r1_is_taken_at_the_data_with_their_own_classes():
    model, rows = make(loop={"r1": 3.0}), batch(PLANE)
    r1 = model.discriminator_loss(rows)["r1"]
    x, c = rows["x"].clone().requires_grad_(), torch.eye(11)[rows["y"]]
    (slope,) = torch.autograd.grad(model.d.net(x, c).sum(), x)
    torch.testing.assert_close(r1, 1.5 * slope.square().sum(1).mean())


def test_the_game_is_played_as_it_is_asked_for():
    options = {"lr_d": 0.2, "lr_g": 0.1, "beta1": 0.3}
    model = make(prior="uniform", k=3, **options)
    assert all(o.defaults["betas"] == (0.3, 0.999) for o in model.optimisers().values())
    sgd = make(optimiser="sgd", **options).optimisers()
    assert all(type(o) is torch.optim.SGD for o in sgd.values())
    for made in (model.optimisers(), sgd):
        assert {p: o.defaults["lr"] for p, o in made.items()} == {"d": 0.2, "g": 0.1}
    assert [(p.player, p.times(0)) for p in model.phases()] == [("d", 3), ("g", 1)]
    assert model.codes(500).abs().max() <= 1


def test_the_paths_between_codes_run_between_classes_too():
    model = make(IMAGES).eval()
    a, b, y, to = (
        torch.randn(3, 32),
        torch.randn(3, 32),
        torch.tensor([0, 1, 2]),
        torch.tensor([5, 6, 7]),
    )
    frames = model.interpolate(a, b, 5, y=y, to=to)
    assert frames.shape == (3, 5, 1, 8, 8)
    for i, code, label in ((0, a, y), (-1, b, to)):
        assert torch.equal(frames[:, i], model.from_codes(code, y=label))
    same = model.interpolate(a, a, 3, y=y)
    assert torch.equal(same[:, 0], same[:, 1]) and torch.equal(same[:, 0], model.from_codes(a, y=y))


def test_paper_networks_are_the_papers():
    options = {
        "latent": 100,
        "g_widths": (200, 1000, 1200),
        "d_units": (240, 50, 240),
        "d_pieces": (5, 5, 4),
        "dropout": 0.5,
    }
    model = make(DataSpec((1, 28, 28), 256, 10), **options)
    assert [tuple(p.shape) for p in model.g.parameters() if p.ndim == 2] == [
        (200, 100),
        (1000, 10),
        (1200, 1200),
        (784, 1200),
    ]
    layers = [m for m in model.d.net.modules() if isinstance(m, Maxout)]
    assert [
        (m.linear.in_features, m.linear.out_features // m.pieces, m.pieces) for m in layers
    ] == [
        (784, 240, 5),
        (10, 50, 5),
        (290, 240, 4),
    ]
    for net in (model.g, model.d.net):
        assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    made = model.g(torch.randn(4, 100), model.one_hot(torch.arange(4)))
    assert 0 < made.min() < made.max() < 1


def test_convolutions_see_the_class_as_constant_maps():
    seen = []
    net = Joined(nn.Identity())
    net.net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x, c = torch.randn(4, 1, 8, 8), F.one_hot(torch.arange(4), 4).float()
    net(x, c)
    net(torch.randn(4, 7), c)
    assert torch.equal(seen[0][:, 1:], c[:, :, None, None].expand(4, 4, 8, 8)) and torch.equal(
        seen[0][:, :1], x
    )
    assert seen[1].shape == (4, 11) and torch.equal(seen[1][:, 7:], c)


def test_sgd_decays_the_rate_and_raises_the_momentum_of_both():
    model, rows = (
        make(optimiser="sgd", lr_d=0.1, lr_g=0.2, lr_decay=2.0, momentum_steps=10, k=2),
        batch(PLANE, 66),
    )
    fit(model, Given(PLANE, rows["x"], rows["y"], batch_size=11), 4)
    d, g = (o.param_groups[0] for o in model.optimizers())
    assert (d["lr"], g["lr"]) == (pytest.approx(0.1 / 2**8), pytest.approx(0.2 / 2**4))
    assert d["momentum"] == pytest.approx(0.58) and g["momentum"] == pytest.approx(0.58)


@pytest.mark.slow
def test_labels_of_the_ring_hit_their_own_modes():
    from zoo.data.toy2d import Toy2D

    data = Toy2D(labelled=True)
    model = make(data.spec, loop={"r1": 5.0})
    fit(model, data, 1500)
    y = torch.arange(800) % 8
    nearest = torch.cdist(draw(model, 800, told={"y": y}), data.centres).argmin(1)
    hits = [(nearest[y == label] == label).float().mean() > 0.9 for label in range(8)]
    assert sum(hits) >= 7


def test_unlabelled_data_and_options_without_a_meaning_are_refused():
    with pytest.raises(ValueError, match=r"cgan needs labels called y, got .*; choose labelled"):
        CGAN(DataSpec((2,)))
    for bad in ({"arch": "rnn"}, {"optimiser": "lion"}, {"dropout": 1.0}):
        with pytest.raises(ValueError, match="got"):
            make(**bad)
