"""What makes CycleGAN itself: the round trips, the pool, the identity, and images that know nothing
of each other.
"""

import pytest
import torch
from torch import nn

from zoo.bases.image_pool import ImagePool
from zoo.core import Image, Spec
from zoo.core.noise import Noise
from zoo.nn.residual import ResidualBlock, ResidualTranslator
from zoo.translation.cyclegan import GAME, SHOWN, CycleGAN

COLOUR = Image((3, 16, 16), 17)
SPEC = Spec("domains", a=COLOUR, b=COLOUR)


def model(spec=SPEC, **options):
    torch.manual_seed(0)
    made = CycleGAN(spec, width=4, blocks=1, **options)
    made.noise = Noise(0, "check")
    return made


def batch(n=3, spec=SPEC):
    return spec.example(n, 1)


class Game:
    """What a pool asks of a model."""

    def __init__(self):
        self.noise = Noise(0, "pool")

    def everyone(self, rows):
        return rows


def numbered(start, n):
    return torch.arange(start, start + n).float().view(n, 1, 1, 1)


def test_the_pool_hands_back_what_is_new_until_it_is_full_and_then_half_the_time():
    pool, game = ImagePool(50, [(1, 1, 1)]), Game()
    first = pool.mix([numbered(0, 50)], game)[0]
    assert torch.equal(first, numbered(0, 50)) and int(pool.seen) == 50
    old, given = 0, set(range(50))
    for step in range(1000):
        new = numbered(50 + 5 * step, 5)
        out = pool.mix([new], game)[0]
        old += (out != new).sum().item()
        assert all(v in given or v >= 50 + 5 * step for v in out.flatten().int().tolist())
        given |= set(new.flatten().int().tolist())
    assert 0.47 < old / 5000 < 0.53 and int(pool.seen) == 50
    kept = pool.past0.flatten().int().tolist()
    assert len(set(kept)) == 50 and min(kept) >= 0 and max(kept) > 4900


def test_what_is_handed_back_for_a_new_image_leaves_the_pool():
    pool, game = ImagePool(4, [(1, 1, 1)]), Game()
    inside = set(pool.mix([numbered(0, 4)], game)[0].flatten().int().tolist())
    places = set()
    for i in range(4, 200):
        out = pool.mix([numbered(i, 1)], game)[0].item()
        now = set(pool.past0.flatten().int().tolist())
        if out == i:
            assert now == inside
        else:
            assert inside - now == {int(out)} and now - inside == {i}
            places.add(pool.past0.flatten().int().tolist().index(i))
        inside = now
    assert places == {0, 1, 2, 3}


def test_with_d_at_a_half_d_pays_a_quarter_and_each_g_a_quarter():
    m = model(lam_a=0.0, lam_b=0.0, lam_id=0.0)
    for d in m.d.values():
        d.net.forward = lambda v: torch.full((len(v), 4, 4), 0.5)
    terms = m.generator_loss(batch())
    assert terms["loss"].item() == pytest.approx(0.5)
    shown = m.discriminator_loss({k: terms[k].detach() for k in SHOWN})
    assert shown["loss_a"].item() == shown["loss_b"].item() == pytest.approx(0.25)
    s = torch.tensor([-1.0, 0.0, 2.0])
    assert GAME.real(s).tolist() == [2.0, 0.5, 0.5] and GAME.fake(s).tolist() == [0.5, 0.0, 2.0]
    assert GAME.maker(s).tolist() == [4.0, 1.0, 1.0]


def test_one_round_trip_teaches_both_generators():
    m, rows = model(), batch()
    m.generator_loss(rows)["cycle_a"].backward()
    for g in m.g.values():
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in g.parameters())
    assert all(p.grad is None for d in m.d.values() for p in d.parameters())


def test_the_loss_is_its_parts_with_their_weights():
    m, rows = model(lam_a=3.0, lam_b=5.0, lam_id=0.25), batch()
    for d in m.d.values():
        d.net.forward = lambda v: torch.ones(len(v), 4, 4)  # fooled
    a, b = (rows[k] / 8 - 1 for k in "ab")
    to_b, to_a = m.g["b"], m.g["a"]

    def l1(p, q):
        return (p - q).abs().mean()

    cycle_a, cycle_b = l1(to_a(to_b(a)), a), l1(to_b(to_a(b)), b)
    wanted = 3 * cycle_a + 5 * cycle_b + 0.25 * (5 * l1(to_b(b), b) + 3 * l1(to_a(a), a))
    terms = m.generator_loss(rows)
    torch.testing.assert_close(terms["loss"], wanted)
    torch.testing.assert_close(terms["cycle_a"], cycle_a)
    torch.testing.assert_close(terms["cycle_b"], cycle_b)
    torch.testing.assert_close(terms["same_b"], l1(to_b(b), b))
    torch.testing.assert_close(terms["same_a"], l1(to_a(a), a))


def test_an_identity_costs_nothing_where_the_generators_are_it():
    m = model()
    for name in "ab":
        m.g[name] = nn.Identity()
    terms = m.generator_loss(batch())
    assert all(terms[k].item() == 0 for k in ("same_a", "same_b", "cycle_a", "cycle_b"))


def test_each_d_is_shown_its_own_domain_and_what_the_pool_hands_back():
    m, rows = model(), batch()
    terms = m.generator_loss(rows)
    torch.testing.assert_close(terms["made_b"], m.g["b"](rows["a"] / 8 - 1))
    torch.testing.assert_close(terms["made_a"], m.g["a"](rows["b"] / 8 - 1))
    seen = {"a": [], "b": []}
    for name, d in m.d.items():
        d.register_forward_hook(lambda d, i, out, name=name: seen[name].append(i[0]))
        d.pool.mix = lambda made, game: [10 + v for v in made]
    m.discriminator_loss({k: terms[k].detach() for k in SHOWN})
    for name in "ab":
        assert torch.equal(seen[name][0], rows[name] / 8 - 1)
        assert torch.equal(seen[name][1], 10 + terms[f"made_{name}"])
    assert int(model(pool=7).d["a"].pool.size) == 7 and model(pool=0).d["b"].pool is None


def test_g_moves_first_and_both_d_see_the_images_of_that_step():
    m = model()
    first, second = m.phases()
    assert (first.player, second.player) == ("g", "d")
    assert first.makes == second.reads == SHOWN and second.critic and not first.critic
    assert m.batches_per_step() == 1
    optimisers = m.optimisers()
    moved = {id(p) for group in optimisers["g"].param_groups for p in group["params"]}
    assert moved == {id(p) for g in m.g.values() for p in g.parameters()}


def test_no_image_knows_of_its_companions():
    m = model()
    rows = batch(4)
    for mode in (m.train(), m.eval()):
        for name in "ab":
            together = mode.g[name](rows["a"] / 8 - 1)[:1]
            alone = mode.g[name](rows["a"][:1] / 8 - 1)
            torch.testing.assert_close(together, alone)
    assert not any("running" in n for n, _ in m.named_buffers())
    assert not any(isinstance(x, nn.InstanceNorm2d) and x.affine for x in m.modules())


def test_the_translator_is_the_papers():
    net = ResidualTranslator(3, 3, 64, 9)
    convs = [x for x in net if isinstance(x, (nn.Conv2d, nn.ConvTranspose2d))]
    assert [c.out_channels for c in convs] == [64, 128, 256, 128, 64, 3]
    assert [c.kernel_size[0] for c in convs] == [7, 3, 3, 3, 3, 7]
    assert [c.stride[0] for c in convs] == [1, 2, 2, 2, 2, 1]
    blocks = [x for x in net if isinstance(x, ResidualBlock)]
    assert len(blocks) == 9 and blocks[0].net[1].out_channels == 256
    x = torch.rand(1, 4, 8, 8) - 0.5
    block = ResidualBlock(4)
    assert (block(x) < 0).any()  # no ReLU after the sum
    torch.testing.assert_close(block(x), x + block.net(x))


def test_there_and_back_are_their_own_generators():
    m, rows = model().eval(), batch()
    for to, source in (("b", "a"), ("a", "b")):
        made = m.g[to](rows[source] / 8 - 1)
        wanted = ((made + 1) * 8).round().clamp(0, 16)
        assert torch.equal(m.translate(rows[source], to), wanted)
    assert torch.equal(m.sample(3, a=rows["a"]), m.translate(rows["a"]))


def test_each_domain_is_read_and_written_in_its_own_levels():
    spec = Spec("d", a=Image((3, 16, 16), 2), b=Image((3, 16, 16), 9))
    m = model(spec).eval()
    for to, (top_in, top_out) in {"b": (1, 8), "a": (8, 1)}.items():
        x, shown = torch.randint(top_in + 1, (2, 3, 16, 16)).float(), []
        m.g[to].register_forward_pre_hook(lambda g, inputs, shown=shown: shown.append(inputs[0]))
        made = m.translate(x, to)
        torch.testing.assert_close(shown[0], 2 * x / top_in - 1)
        wanted = (m.g[to](shown[0]) + 1) / 2 * top_out
        assert torch.equal(made, wanted.round().clamp(0, top_out))


def test_round_trips_are_measured_on_the_unit_interval():
    m, rows = model().eval(), batch()
    rows["oracle_b"] = rows["b"].flip(0)
    a, b = (rows[k] / 8 - 1 for k in "ab")
    found = m.evaluate(rows)
    wanted = ((m.g["a"](m.g["b"](a)) - a) / 2).abs().flatten(1).mean(1)
    torch.testing.assert_close(found["cycle_a"], wanted)
    wanted = ((m.g["b"](m.g["a"](b)) - b) / 2).abs().flatten(1).mean(1)
    torch.testing.assert_close(found["cycle_b"], wanted)
    wanted = ((m.g["a"](b.flip(0)) - a) / 2).abs().flatten(1).mean(1)
    torch.testing.assert_close(found["back_l1"], wanted)
    assert "back_l1" not in m.evaluate(batch())


def test_rates_end_at_one_over_the_steps_and_one():
    m = model(decay_start=100, decay_end=200)
    optimisers = m.optimisers()
    for name, schedule in m.schedulers(optimisers).items():
        for _ in range(199):
            optimisers[name].step()
            schedule.step()
        assert optimisers[name].param_groups[0]["lr"] == pytest.approx(2e-4 / 101)


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        (Spec("d", a=Image((1, 16, 16), 17), b=COLOUR), {}, "set model.lam_id=0"),
        (Spec("d", a=Image((3, 18, 16), 17), b=Image((3, 18, 16), 17)), {}, "multiples of 4"),
        (SPEC, {"layers": 3}, "set layers to 2"),
    ],
)
def test_what_cannot_be_is_refused(spec, options, said):
    with pytest.raises(ValueError, match=said):
        model(spec, **options)


def test_domains_of_other_channels_are_translated_without_the_identity():
    spec = Spec("d", a=Image((1, 16, 16), 17), b=COLOUR)
    m = model(spec, lam_id=0.0)
    assert "same_a" not in m.generator_loss(batch(2, spec))
    assert m.translate(batch(2, spec)["a"]).shape == (2, 3, 16, 16)
