"""What makes DualGAN itself: critics that are clamped and their turns, signs of the game, round
trips with noise of their own, and the released loss beside the paper's.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.support import Given, fit
from zoo.core import Image, Spec
from zoo.core.noise import Noise
from zoo.translation.dualgan import GAMES, DualGAN

GREY = Image((1, 16, 16), 17)
SPEC = Spec("domains", a=GREY, b=GREY)


def model(spec=SPEC, **options):
    torch.manual_seed(0)
    made = DualGAN(spec, width=4, widest=8, **options)
    made.noise = Noise(0, "check")
    return made


def rows(n=4, spec=SPEC, seed=1):
    return spec.example(n, seed)


def signed(batch):
    return {k: batch[k] / 8 - 1 for k in "ab"}


def largest(net):
    return max(p.abs().max().item() for p in net.parameters())


class Mean(nn.Module):
    """A critic that scores brightness, times a weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.01))

    def forward(self, x):
        return self.weight * x.mean((1, 2, 3))


def played(cycles, **options):
    """Whose networks each step of a run moved, and the model."""
    m, moved = model(**options), []
    nets = {f"{p}{k}": net for p in "dg" for k, net in getattr(m, p).items()}

    def state():
        return {k: nn.utils.parameters_to_vector(n.parameters()).clone() for k, n in nets.items()}

    was, after = state(), m.after_step

    def after_step(player):
        after(player)
        now = state()
        moved.append("".join(sorted(k for k in nets if not torch.equal(was[k], now[k]))))
        was.update(now)
        tops.append({p: largest(getattr(m, p)) for p in "dg"})

    tops = []
    m.after_step = after_step
    fields = rows(8 * m.batches_per_step())
    fit(m, Given(SPEC, fields={k: fields[k] for k in "ab"}, batch_size=4), cycles)
    return m, moved, tops


def test_both_critics_move_n_times_and_then_both_g_and_each_step_clamps_the_critics_alone():
    m, moved, tops = played(3, c=0.03, k=2, lr_d=0.1, lr_g=0.1)
    assert moved == ["dadb", "dadb", "gagb"] * 3
    assert all(top["d"] <= 0.03 + 1e-9 for top in tops)
    assert tops[-1]["d"] == pytest.approx(0.03) and tops[-1]["g"] > 0.2
    assert m.batches_per_step() == 3 and model().batches_per_step() == 4


def test_the_released_loss_never_clamps_and_g_moves_twice():
    m, moved, tops = played(3, loss="bce", c=0.03, lr_d=0.1)
    assert moved == ["dadb", "gagb", "gagb"] * 3 and m.batches_per_step() == 3
    assert tops[0]["d"] > 0.05
    assert [p.times(0) for p in model(loss="bce", k=4).phases()] == [4, 2]


def test_g_makes_what_critics_score_higher_and_critics_tell_data_from_what_was_made():
    m, batch = model(lam_a=0.0, lam_b=0.0, dropout=0.0), rows()
    for d in m.d.values():
        d.net = Mean()
    was = {k: m.made(k, signed(batch)["a" if k == "b" else "b"]).mean().item() for k in "ab"}
    optimisers = m.optimisers()
    m.generator_loss(batch)["loss"].backward()
    optimisers["g"].step()
    now = {k: m.made(k, signed(batch)["a" if k == "b" else "b"]).mean().item() for k in "ab"}
    assert all(now[k] > was[k] for k in "ab")
    batch = {k: torch.full_like(batch[k], 16) for k in "ab"}  # brighter than what is made
    batch = type(rows())(batch, 4)
    before = m.discriminator_loss(batch)
    m.d.zero_grad()
    before["loss"].backward()
    m.optimisers()["d"].step()
    after = m.discriminator_loss(batch)
    assert all(after[f"w_{k}"] > before[f"w_{k}"] > 0 for k in "ab")


def test_critics_pay_the_mean_of_what_was_made_less_that_of_data():
    m, batch = model(dropout=0.0), rows()
    x, terms = signed(batch), None
    terms, total = m.discriminator_loss(batch), 0
    for to, source in (("b", "a"), ("a", "b")):
        d = m.d[to].net
        wanted = d(m.g[to](x[source])).mean() - d(x[to]).mean()
        torch.testing.assert_close(terms[f"loss_{to}"], wanted)
        torch.testing.assert_close(terms[f"w_{to}"], -wanted)
        total = total + wanted
    torch.testing.assert_close(terms["loss"], total)
    terms["loss"].backward()
    assert all(p.grad is None for p in m.g.parameters())


@pytest.mark.parametrize("loss", ["wgan", "bce"])
def test_g_pays_for_its_scores_and_for_round_trips_by_their_own_weights(loss):
    m, batch = model(dropout=0.0, lam_a=3.0, lam_b=5.0, loss=loss), rows()
    x, terms, wanted = signed(batch), m.generator_loss(batch), 0
    for source, to, lam in (("a", "b", 3.0), ("b", "a", 5.0)):
        made = m.g[to](x[source])
        recon = (m.g[source](made) - x[source]).abs().mean()
        torch.testing.assert_close(terms[f"recon_{source}"], recon)
        s = m.d[to].net(made)
        fooled = (
            -s
            if loss == "wgan"
            else F.binary_cross_entropy_with_logits(s, torch.ones_like(s), reduction="none")
        )
        wanted = wanted + lam * recon + fooled.mean()
    torch.testing.assert_close(terms["loss"], wanted)
    assert model().lam == {"a": 100.0, "b": 100.0}


def test_the_released_prices_are_cross_entropies_of_logits():
    s = torch.tensor([-3.0, 0.0, 2.0])
    one, zero = torch.ones(3), torch.zeros(3)
    price = GAMES["bce"]
    for of, target in ((price.real, one), (price.fake, zero), (price.maker, one)):
        wanted = F.binary_cross_entropy_with_logits(s, target, reduction="none")
        torch.testing.assert_close(of(s), wanted)


def test_a_round_trip_teaches_both_g_and_no_critic():
    m = model()
    m.generator_loss(rows())["recon_b"].backward()
    for g in m.g.values():
        assert all(p.grad is not None for p in g.parameters())
        assert sum(p.grad.abs().sum() for p in g.parameters()) > 0
    assert all(p.grad is None for p in m.d.parameters())


def test_translating_is_noisy_in_evaluation_too_unless_nothing_is_dropped():
    m, a = model().eval(), rows()["a"]

    def made(m, seed, **options):
        return m.translate(a, generator=torch.Generator().manual_seed(seed), **options)

    assert torch.equal(made(m, 1), made(m, 1)) and not torch.equal(made(m, 1), made(m, 2))
    assert torch.equal(made(m, 1, deterministic=True), made(m, 2, deterministic=True))
    still = model(dropout=0.0).eval()
    assert torch.equal(made(still, 1), made(still, 2))
    plain = model(noisy=0).eval()
    assert torch.equal(made(plain, 1), made(plain, 2))
    back = m.translate(a, "a", deterministic=True)
    assert torch.equal(back, ((m.g["a"](a / 8 - 1) + 1) * 8).round().clamp(0, 16))
    again = m.sample(4, a=a, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again, made(m, 1))


def test_every_pass_of_a_step_draws_noise_of_its_own():
    m, batch, drawn = model(), rows(), []
    for name, g in m.g.items():
        forward = g.forward

        def watched(x, source=None, forward=forward, name=name):
            assert source is m.noise
            drawn.append((name, source.draws))
            return forward(x, source)

        g.forward = watched
    m.generator_loss(batch)
    assert [name for name, _ in drawn] == ["b", "a", "a", "b"]
    assert [n for _, n in drawn] == [0, 2, 4, 6]  # two levels each
    m.discriminator_loss(batch)
    assert [name for name, _ in drawn[4:]] == ["a", "b"]


def test_critics_judge_their_own_domain():
    m, batch, seen = model(dropout=0.0), rows(), {"a": [], "b": []}
    for name, d in m.d.items():
        d.register_forward_hook(lambda d, i, out, name=name: seen[name].append(i[0]))
    m.discriminator_loss(batch)
    x = signed(batch)
    for to, source in (("b", "a"), ("a", "b")):
        torch.testing.assert_close(seen[to][0], x[to])
        torch.testing.assert_close(seen[to][1], m.g[to](x[source]))


def test_no_image_knows_of_another_and_critics_have_no_gains():
    m, a = model(dropout=0.0), rows()["a"] / 8 - 1
    for net in (m.g["b"], m.d["b"].net):
        torch.testing.assert_close(net(a)[:1], net(a[:1]))
    assert not any(isinstance(x, nn.InstanceNorm2d) and x.affine for x in m.d.modules())
    assert not any("running" in name for name, _ in m.named_buffers())


def test_only_a_critic_whose_level_counts_has_a_bias_at_its_end():
    for loss in ("wgan", "bce"):
        ends = [d.net.net[-1].bias is not None for d in model(loss=loss).d.values()]
        assert ends == [loss == "bce"] * 2


def test_the_optimisers_are_rmsprop_with_a_decay_of_nine_tenths():
    m = model(lr_d=1e-3, lr_g=2e-3)
    for name, o in m.optimisers().items():
        assert type(o) is torch.optim.RMSprop and o.defaults["alpha"] == 0.9
        assert o.defaults["lr"] == {"d": 1e-3, "g": 2e-3}[name] and o.defaults["momentum"] == 0
    assert {o.defaults["lr"] for o in model().optimisers().values()} == {5e-5}


@pytest.mark.parametrize(
    ("shapes", "options", "said"),
    [
        (((1, 16, 16), (1, 32, 32)), {}, "one size"),
        (((1, 20, 20), (1, 20, 20)), {}, "set --data.size to one, or model.levels lower"),
        (((1, 16, 16), (1, 16, 16)), {"layers": 3}, "set layers to 2"),
    ],
)
def test_what_cannot_be_is_refused(shapes, options, said):
    a, b = (Image(shape, 17) for shape in shapes)
    with pytest.raises(ValueError, match=said):
        model(Spec("d", a=a, b=b), **options)


def test_targets_are_smoothed_in_the_released_game_alone():
    assert model(loss="bce", loop={"label_smooth": 0.9}).d["a"].options.label_smooth == 0.9
    with pytest.raises(ValueError, match="its loss has no targets"):
        model(loop={"label_smooth": 0.9})


def test_domains_of_other_channels_and_levels_are_translated():
    spec = Spec("d", a=GREY, b=Image((3, 16, 16), 256))
    m, batch = model(spec, levels=2), rows(3, spec)
    assert m.translate(batch["a"]).shape == (3, 3, 16, 16)
    assert m.translate(batch["b"], "a").shape == (3, 1, 16, 16) and m.grain == 4
    assert m.generator_loss(batch)["loss"].isfinite()
