"""BigGAN is BigGAN: chunks of the code and one embedding by block, a projection head, the hinge,
spectral norms and an orthogonal penalty, truncation and standing statistics.
"""

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.biggan import BigGAN, off_diagonal, truncated
from zoo.nn.conditional import ConditionalBatchNorm

SPEC = DataSpec((1, 16, 16), 17, 4)
F64 = torch.float64


def make(**options) -> BigGAN:
    torch.manual_seed(0)
    small = {"chunk": 3, "embedding": 5, "width": 8, "widest": 16, "standing": 2, **options}
    model = BigGAN(SPEC, **small).double()
    model.noise = Noise(3, "test", dtype=F64)
    return model


def images(n: int = 8) -> Batch:
    g = torch.Generator().manual_seed(1)
    x = torch.randint(0, 17, (n, 1, 16, 16), generator=g).double()
    return Batch({"x": x, "y": torch.arange(n) % 4})


def test_losses_are_the_hinges_of_real_and_freshly_made_images():
    model, made, judged = make(beta=0.0), [], []
    model.g.register_forward_hook(lambda net, given, out: made.append((given, out)))
    model.d.net.register_forward_hook(lambda net, given, s: judged.append((given[0], s)))
    loss = model.discriminator_loss(images())["loss"]
    (x, s), (fake, t) = judged
    assert torch.equal(x, SPEC.to_signed(images()["x"])) and torch.equal(fake, made[0][1])
    expected = (
        sum(max(0, 1 - v) for v in s.tolist()) / 8 + sum(max(0, 1 + v) for v in t.tolist()) / 8
    )
    assert loss.item() == pytest.approx(expected)
    model.noise = Noise(4, "test", dtype=F64)
    maker = model.generator_loss(Batch({}, 8))["loss"]
    assert maker.item() == pytest.approx(-judged[2][1].mean().item())
    assert not torch.equal(made[0][0][0], made[1][0][0]) and made[0][0][0].shape == (8, 9)
    assert torch.equal(model.d.price.real(torch.tensor([2.0, 0.0])), torch.tensor([0.0, 1.0]))
    assert torch.equal(model.d.price.fake(torch.tensor([-2.0, 0.0])), torch.tensor([0.0, 1.0]))


def test_the_discriminator_is_told_each_images_own_class():
    model, seen = make(), []
    model.d.net.register_forward_pre_hook(lambda net, given: seen.append(given[1]))
    made = []
    model.g.register_forward_pre_hook(lambda net, given: made.append(given[1]))
    model.discriminator_loss(images())
    model.noise = Noise(4, "other", dtype=F64)
    model.generator_loss(Batch({}, 8))
    assert torch.equal(seen[0], images()["y"]) and torch.equal(seen[1], made[0])
    assert torch.equal(seen[2], made[1]) and not torch.equal(made[0], made[1])


def test_classes_are_uniform():
    model = make()
    c = model.made(4000)[1]
    assert (torch.bincount(c, minlength=4) / 4000 - 0.25).abs().max() < 0.03


def test_no_gradient_reaches_the_generator_in_the_discriminators_turn():
    model = make()
    model.discriminator_loss(images())["loss"].backward()
    assert all(p.grad is None for p in model.g.parameters())
    assert model.d.net.head.linear.bias.grad is not None


def test_every_weight_but_the_embedding_has_a_largest_singular_value_of_one():
    model = make(width=4, widest=8)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_()
        for _ in range(150):
            model.d.net(model.g(torch.randn(2, 9, dtype=F64), y := torch.tensor([0, 1])), y)
    model.eval()
    seen = {}
    for net in (model.g, model.d.net):
        for name, module in net.named_modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding)):
                seen[name] = torch.linalg.matrix_norm(module.weight.flatten(1), 2).item()
    assert len(seen) > 25 and seen.pop("embedding") > 2
    assert all(sigma == pytest.approx(1, abs=0.02) for sigma in seen.values()), seen
    assert any("_u" in name for name, _ in model.g.named_buffers())


def test_the_logit_is_of_the_sum_over_places_and_the_class():
    model = make().eval()
    net, x = model.d.net, torch.randn(3, 1, 16, 16, dtype=F64)
    kept = []
    net.blocks[-1].register_forward_hook(lambda m, given, out: kept.append(out))
    y, other = torch.tensor([0, 1, 2]), torch.tensor([3, 1, 0])
    h = net.features(x)
    torch.testing.assert_close(h, kept[0].clamp(min=0).sum((2, 3)))
    v = net.head.classes.weight
    torch.testing.assert_close(net(x, y) - net(x, other), ((v[y] - v[other]) * h).sum(1))


def test_each_block_listens_to_its_own_chunk_and_all_to_the_class():
    model = make().eval()
    synthesis = model.g.synthesis
    z = torch.randn(2, 9, dtype=F64, requires_grad=True)
    seen = [[] for _ in synthesis.blocks]
    for block, to in zip(synthesis.blocks, seen, strict=True):
        block.norm1.register_forward_pre_hook(lambda m, given, to=to: to.append(given[1]))
        block.norm2.register_forward_pre_hook(lambda m, given, to=to: to.append(given[1]))
    base = []
    synthesis.base.register_forward_pre_hook(lambda m, given: base.append(given[0]))
    y = torch.tensor([1, 3])
    model.g(z, y)
    assert torch.equal(base[0], z[:, :3])
    for i, to in enumerate(seen, 1):
        expected = torch.cat([model.g.embedding.weight[y], z[:, 3 * i : 3 * i + 3]], 1)
        assert len(to) == 2 and all(torch.equal(c, expected) for c in to)
    norms = [m for m in model.g.modules() if isinstance(m, ConditionalBatchNorm)]
    assert len(norms) == 4 and {m.gain.in_features for m in norms} == {8}


def test_the_orthogonal_penalty_has_four_times_its_gradient_and_none_at_orthogonal_rows():
    w = torch.randn(4, 3, 2, 2, dtype=F64, requires_grad=True)
    rows = w.detach().flatten(1)
    products = rows @ rows.T
    products.fill_diagonal_(0)
    assert off_diagonal(w).item() == pytest.approx((products**2).sum().item())
    (slope,) = torch.autograd.grad(off_diagonal(w), w)
    torch.testing.assert_close(slope.flatten(1), 4 * products @ rows)
    q = torch.linalg.qr(torch.randn(6, 6, dtype=F64))[0][:4] * torch.arange(1, 5)[:, None]
    assert off_diagonal(q).item() == pytest.approx(0, abs=1e-20)


def test_the_penalty_is_of_the_weights_before_their_division_and_leaves_the_embedding():
    model = make(beta=0.5)
    for p in model.g.parameters():
        if p.ndim > 1:
            p.data.normal_()
    terms = model.generator_loss(Batch({}, 8))
    expected = 0.0
    for name, p in model.g.named_parameters():
        if p.ndim > 1 and name != "embedding.weight":
            rows = p.detach().flatten(1).numpy()
            gram = rows @ rows.T
            expected += (gram**2).sum() - (gram.diagonal() ** 2).sum()
    assert terms["ortho"].item() == pytest.approx(expected)
    plain = make(beta=0.0).generator_loss(Batch({}, 8))
    again = make(beta=0.5).generator_loss(Batch({}, 8))
    torch.testing.assert_close(again["loss"], plain["loss"] + 0.5 * plain["ortho"])


def test_weights_begin_orthogonal():
    model = make()
    for name, p in [*model.g.named_parameters(), *model.d.net.named_parameters()]:
        if p.ndim > 1:
            rows = p.detach().flatten(1)
            rows = rows if len(rows) <= rows.shape[1] else rows.T
            torch.testing.assert_close(
                rows @ rows.T, torch.eye(len(rows), dtype=F64), rtol=0, atol=1e-5, msg=name
            )


@pytest.mark.parametrize("t", [0.04, 0.5, 2.0])
def test_truncated_codes_are_normal_ones_given_that_they_are_within_the_threshold(t):
    u = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=F64)
    z = truncated(u, t)
    assert z.abs().max() <= t
    assert stats.kstest(z.numpy(), stats.truncnorm(-t, t).cdf).pvalue > 0.01
    assert truncated(torch.zeros(1), t).item() >= -t - 1e-6


def test_samples_are_drawn_from_truncated_codes_and_less_diverse_under_a_threshold():
    model, seen = make(standing=0).eval(), []
    model.g.register_forward_pre_hook(lambda net, given: seen.append(given))
    y = torch.zeros(64, dtype=torch.int64)
    for t in (None, 1.0, 0.1):
        model.sample(64, y=y, truncation=t, generator=torch.Generator().manual_seed(0))
    free, one, little = (z for z, _ in seen)
    assert free.abs().max() > 2 and 0.9 < one.abs().max() <= 1 and 0.09 < little.abs().max() <= 0.1
    assert little.shape == (64, 9) and all(torch.equal(c, y) for _, c in seen)
    spread = [model.g(z, y).var(0).mean() for z in (free, one, little)]
    assert spread[0] > spread[1] > spread[2]
    assert all(t > 0 for t in BigGAN.truncations)


def test_samples_have_the_statistics_of_their_own_passes_and_leave_the_running_ones():
    model = make(standing=3).eval()
    y, codes = torch.arange(4), torch.randn(4, 9, dtype=F64)
    norm = model.g.synthesis.blocks[0].norm1.norm
    seen, before = [], norm.running_mean.clone()
    model.g.synthesis.base.register_forward_hook(lambda m, given, h: seen.append(h))
    one = model.from_codes(codes, y=y)
    assert len(seen) == 4 and torch.equal(norm.running_mean, before)
    passes = torch.stack([h.mean((0, 2, 3)) for h in seen[:3]])
    assert [len(h) for h in seen] == [64, 64, 64, 4] and passes.std(0).min() > 0
    assert torch.equal(one, model.from_codes(codes, y=y))
    assert torch.equal(one[:1], model.from_codes(codes[:1], y=y[:1]))
    rough = make(standing=0).eval().from_codes(codes, y=y)
    assert not torch.equal(rough, one)


def test_attention_has_one_size_in_both_networks():
    for attention, found in ((0, (0, 0)), (1, (8, 8)), (2, (16, 0))):
        model, sizes = make(attention=attention), {"g": 0, "d": 0}
        for name, net in (("g", model.g.synthesis), ("d", model.d.net)):
            net.attention.register_forward_pre_hook(
                lambda m, given, name=name, to=sizes: to.update({name: given[0].shape[2]})
            )
        model.discriminator_loss(images())
        assert (sizes["g"], sizes["d"]) == found
    with pytest.raises(ValueError, match=r"biggan has 2 blocks .* attention=3"):
        make(attention=3)


def test_blocks_are_those_of_the_paper_at_128():
    with torch.device("meta"):
        model = BigGAN(
            DataSpec((3, 128, 128), 256, 1000),
            chunk=20,
            embedding=128,
            width=96,
            widest=1536,
            attention=4,
        )
    assert model.latent == 120
    assert [b.conv1.out_channels // 96 for b in model.g.synthesis.blocks] == [16, 8, 4, 2, 1]
    assert [b.conv1.in_channels // 96 for b in model.g.synthesis.blocks] == [16, 16, 8, 4, 2]
    assert [b.conv1.out_channels // 96 for b in model.d.net.blocks] == [1, 2, 4, 8, 16, 16]
    assert [b.down for b in model.d.net.blocks] == [True] * 5 + [False]
    assert model.d.net.attends == 1


def test_a_discriminators_block_is_residual_and_its_first_has_no_rectifier_before():
    model = make().eval()
    first, last = model.d.net.blocks[0], model.d.net.blocks[-1]
    x = torch.randn(2, 1, 16, 16, dtype=F64)
    h = first.conv2(first.conv1(x).clamp(min=0)) + first.shortcut(x)
    torch.testing.assert_close(first(x), F.avg_pool2d(h, 2))
    x = torch.randn(2, 16, 4, 4, dtype=F64)
    torch.testing.assert_close(last(x), last.conv2(last.conv1(x.clamp(min=0)).clamp(min=0)) + x)


def test_options_without_meaning_are_refused():
    for option, value in {"replay": 8, "spectral_norm": True}.items():
        with pytest.raises(ValueError, match=f"loop.{option}.*biggan"):
            BigGAN(SPEC, loop={option: value})
