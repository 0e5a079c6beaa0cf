"""Glow is Glow: actnorm from data, invertible 1x1 convolutions, couplings, learned priors, and one
temperature for all noise.
"""

import math

import pytest
import torch
from torch.nn import functional as F

from tests.support import Given, fit
from zoo.check.likelihoods import assert_flow_inverts, assert_rows_do_not_talk
from zoo.core import Batch, DataSpec
from zoo.core.likelihood import bits_per_dim
from zoo.flow import glow as file
from zoo.flow.glow import Glow, Level, LUMixing, Mixing

SPEC = DataSpec((1, 4, 4), 17, 3)
PLAIN = DataSpec((1, 4, 4), 17)  # without labels
VARIANTS = [{}, {"lu": True}, {"coupling": "additive"}, {"conditional": True}]


def glow(spec: DataSpec = SPEC, scale: float = 0.06, **options) -> Glow:
    """With random weights, after its start from data."""
    torch.manual_seed(0)
    model = Glow(spec, **{"width": 8, "depth": 2, **options}).double().eval()
    model.initialise_from(Batch({"x": images(64, spec)}))
    for p in model.parameters():
        p.data += scale * torch.randn_like(p)
    return model


def images(n: int, spec: DataSpec = SPEC) -> torch.Tensor:
    return torch.randint(
        spec.levels, (n, *spec.shape), generator=torch.Generator().manual_seed(1)
    ).double()


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_flow_inverts_and_its_log_det_is_autograds(options):
    model = glow(**options)
    assert_flow_inverts(
        model.forward_flow, model.inverse_flow, torch.rand(2, 1, 4, 4).double() - 0.5
    )


def test_three_channels_and_three_levels_keep_every_dimension():
    model = glow(DataSpec((3, 8, 8), 4), scales=3)
    v = torch.rand(2, 3, 8, 8).double() - 0.5
    z = model.forward_flow(v)[0]
    assert z.shape == (2, 192) and model.sizes == [96, 48] and model.top == (48, 1, 1)
    torch.testing.assert_close(model.inverse_flow(z)[0], v)


@pytest.mark.parametrize("lu", [False, True])
def test_every_actnorm_standardises_the_first_examples(lu, monkeypatch):
    torch.manual_seed(0)
    model, x = Glow(SPEC, width=8, depth=3, lu=lu), images(300).float()
    seen, conv = [], F.conv2d
    model.initialise_from(Batch({"x": x}))
    monkeypatch.setattr(
        file.F,
        "conv2d",
        lambda h, *rest, **more: seen.append((h, (out := conv(h, *rest, **more)).clone())) or out,
    )
    u = torch.rand(x[:256].shape, generator=file.seeded(int(model.noise_seed), "actnorm"))
    model.forward_flow((x[:256] + u) / 17 - 0.5)
    norms = []
    inputs = iter(seen)
    for i, level in enumerate(model.levels):
        for k in range(3):
            norms.append(
                level.actnorm(next(inputs)[0], k)
            )  # the 1x1 convolution's input, before the fusion
            norms += [next(inputs)[1], next(inputs)[1]]  # the two convolutions with actnorm
            next(inputs)  # the zero convolution
        if i == 0:
            next(inputs)  # the split prior
    assert len(norms) == 18
    for h in norms:
        var, mean = torch.var_mean(h, (0, 2, 3), correction=0)
        assert mean.abs().max() < 1e-4 and (var.sqrt() - 1).abs().max() < 1e-3


def test_start_from_data_happens_once_and_a_checkpoint_keeps_it(tmp_path):
    torch.manual_seed(0)
    model = Glow(SPEC, width=8)
    calls = []
    model.initialise_from = lambda batch: calls.append(Glow.initialise_from(model, batch))
    data = Given(SPEC, images(64).float(), images(64).long()[:, 0, 0, 0] % 3)
    trainer = fit(model, data, 2)
    trainer.save_checkpoint(tmp_path / "at2.ckpt")
    again = Glow(SPEC, width=8)
    again.initialise_from = lambda batch: calls.append("again")
    fit(again, data, 4, ckpt_path=tmp_path / "at2.ckpt")
    assert calls == [None]


def test_the_start_asks_for_no_more_examples_than_it_reads():
    model, rows = Glow(PLAIN, width=8), []
    model.initialise_from = lambda batch: rows.append(batch.n)
    fit(model, Given(PLAIN, images(Glow.first_examples + 64).float()), 1)
    assert rows == [Glow.first_examples]


def test_evaluation_before_training_leaves_actnorm_alone():
    model = Glow(SPEC, width=8).eval()
    model.log_prob(torch.zeros(4, 1, 4, 4))
    assert not any(level.b.any() or level.s.any() for level in model.levels)


def test_fused_step_is_actnorm_then_matrix_then_coupling():
    torch.manual_seed(0)
    level = Level(1, 4, 8, affine=True, lu=False).double()
    for p in level.parameters():
        p.data += 0.3 * torch.randn_like(p)
    h, c = torch.randn(2, 4, 3, 3).double(), level.couplings[0]
    rotated = torch.einsum(
        "ij,bjhw->bihw",
        level.mixing.w[0],
        (h + level.b[0, :, None, None]) * level.s[0, :, None, None].exp(),
    )
    a, b = rotated.chunk(2, 1)
    hidden = a
    for conv in (c.first, c.second):
        hidden = F.conv2d(hidden, conv.weight, padding=conv.weight.shape[-1] // 2)
        hidden = F.relu((hidden + conv.b[:, None, None]) * conv.s[:, None, None].exp())
    out = (F.conv2d(hidden, c.last.weight, padding=1) + c.last.bias[:, None, None]) * (
        3 * c.last.g
    )[:, None, None].exp()
    t, r = out.chunk(2, 1)
    torch.testing.assert_close(level(h)[0], torch.cat([a, (b + t) * torch.sigmoid(r + 2)], 1))


def test_actnorm_and_matrix_log_dets_count_every_pixel():
    level = Level(2, 4, 8, affine=False, lu=False).double()
    level.s.data.normal_()
    level.mixing.w.data.normal_()
    expected = 6 * (level.s.sum() + sum(torch.linalg.det(w).abs().log() for w in level.mixing.w))
    torch.testing.assert_close(level(torch.randn(3, 4, 2, 3).double())[1], expected.expand(3))


def test_lu_and_full_matrices_agree_and_start_with_volume_one():
    torch.manual_seed(0)
    full, lu = Mixing(3, 6), LUMixing(3, 6)
    assert abs(full()[1].item()) < 1e-5 and abs(lu()[1].item()) < 1e-5
    for w in (full()[0], lu()[0]):
        torch.testing.assert_close(w @ w.mT, torch.eye(6).expand(3, 6, 6), rtol=0, atol=1e-5)
    full.double(), lu.double()
    full.w.data.normal_()
    lu.set(full.w)
    torch.testing.assert_close(lu()[0], full()[0])
    torch.testing.assert_close(lu()[1], full()[1])
    assert all(0 < torch.linalg.matrix_rank(p) == 6 and p.sum() == 6 for p in lu.p)


def test_coupling_keeps_the_first_half_and_reads_nothing_else():
    coupling = glow().levels[0].couplings[0]
    h = torch.randn(2, 4, 2, 2).double()
    other = torch.cat([h[:, :2], torch.randn(2, 2, 2, 2).double()], 1)
    (z, log_det), (changed, same) = coupling(h), coupling(other)
    assert torch.equal(z[:, :2], h[:, :2]) and torch.equal(log_det, same)
    scale = (z - changed)[:, 2:] / (h - other)[:, 2:]
    assert (scale > 0).all() and (scale <= 1).all()  # a sigmoid
    torch.testing.assert_close(scale.log().flatten(1).sum(1), log_det)


def test_split_prior_is_standard_at_first_and_then_depends_on_what_stays():
    v = torch.rand(4, 1, 4, 4).double() - 0.5
    fresh, trained = Glow(SPEC, width=8).double(), glow()
    for model, depends in ((fresh, False), (trained, True)):
        mean, log_scale = model.splits[0](torch.randn(4, 2, 2, 2).double()).chunk(2, 1)
        assert (
            bool((mean[0] != mean[1]).any())
            == depends
            == bool((log_scale[0] != log_scale[1]).any())
        )
        assert depends or not (mean.any() or log_scale.any())
        h1, h2 = model.levels[0](F.pixel_unshuffle(v, 2))[0].chunk(2, 1)
        mean, log_scale = model.splits[0](h1).chunk(2, 1)
        normal = torch.distributions.Normal(mean, log_scale.exp()).log_prob(h2).flatten(1).sum(1)
        z = model.forward_flow(v)[0][:, :8]
        written_as_flow = torch.distributions.Normal(0, 1).log_prob(z).sum(1) - log_scale.flatten(
            1
        ).sum(1)
        torch.testing.assert_close(written_as_flow, normal)


def test_split_prior_is_learnt():
    model = Glow(PLAIN, width=8)
    fit(model, Given(PLAIN, images(64).float()), 3)
    assert model.splits[0].weight.abs().max() > 0


def test_temperature_zero_gives_one_image_and_scales_every_eps():
    model = glow()
    cold = model.sample(3, temperature=0.0)
    assert torch.equal(cold[0], cold[1]) and not torch.equal(*model.sample(2))
    seen = []
    model.inverse_flow = lambda z: seen.append(z) or Glow.inverse_flow(model, z)
    for temperature in (1.0, 0.5):
        model.sample(4, generator=torch.Generator().manual_seed(0), temperature=temperature)
    torch.testing.assert_close(seen[1], 0.5 * seen[0])
    split = []
    inverse = model.levels[0].inverse
    model.levels[0].inverse = lambda h: split.append(h) or inverse(h)
    model.sample(1, temperature=0.0)
    h1, h2 = split[0].chunk(2, 1)
    torch.testing.assert_close(
        h2, model.splits[0](h1).chunk(2, 1)[0]
    )  # at T = 0, the mean of the split prior
    assert h2.abs().max() > 0


def test_matrices_are_inverted_once_in_each_level_of_a_sample(monkeypatch):
    model, count = glow(), []
    inverse = torch.linalg.inv
    monkeypatch.setattr(file.torch.linalg, "inv", lambda w: count.append(w.shape) or inverse(w))
    model.sample(50)
    assert count == [(2, 8, 8), (2, 4, 4)]


def test_bits_are_those_of_the_parts_and_count_the_levels():
    model, x = glow(), images(5)
    parts = model.evaluate(Batch({"x": x}))
    torch.testing.assert_close(
        parts["prior_bpd"] + parts["logdet_per_dim"], bits_per_dim(model.log_prob(x), 16)
    )
    fresh = Glow(
        SPEC, width=4, coupling="additive"
    ).double()  # rotations alone: z is as far from 0 as v, and no volume changes
    v = (x + 0.25) / 17 - 0.5
    expected = (
        torch.distributions.Normal(0, 1)
        .log_prob(torch.cat([v.flatten(1).norm(dim=1, keepdim=True), 0 * v.flatten(1)[:, 1:]], 1))
        .sum(1)
    )
    torch.testing.assert_close(
        fresh.bound(x, torch.full_like(x, 0.25)), expected - 16 * math.log(17), rtol=0, atol=1e-5
    )


def test_class_priors_are_normals_and_no_label_means_their_mixture():
    model, x, y = glow(conditional=True), images(3), torch.tensor([2, 0, 1])
    z = torch.randn(3, 16).double()
    m, log_s = model.class_prior[:, y]  # the top is 8 channels of one pixel
    rest = torch.distributions.Normal(0, 1).log_prob(z[:, :8]).sum(1)
    torch.testing.assert_close(
        model.log_base(z, y=y),
        rest + torch.distributions.Normal(m, log_s.exp()).log_prob(z[:, 8:]).sum(1),
    )
    u = torch.full_like(x, 0.3)
    each = torch.stack([model._bound(x, u, torch.full((3,), c))[0] for c in range(3)])
    torch.testing.assert_close(model._bound(x, u, None)[0], each.logsumexp(0) - math.log(3))
    assert model.told == ("y",) and glow().told == ()


def test_samples_of_a_class_follow_its_prior():
    model = glow(conditional=True)
    seen = []
    model.inverse_flow = lambda z: seen.append(z) or Glow.inverse_flow(model, z)
    model.sample(4000, y=torch.full((4000,), 1), generator=torch.Generator().manual_seed(0))
    m, log_s = model.class_prior[:, 1].detach()
    torch.testing.assert_close(seen[0][:, 8:].mean(0), m, rtol=0, atol=0.1)
    torch.testing.assert_close(seen[0][:, 8:].std(0), log_s.exp(), rtol=0.06, atol=0)
    with pytest.raises(ValueError, match="pass the labels"):
        model.sample(4)


def test_classifier_loss_is_added_in_bits_and_is_no_part_of_the_likelihood():
    model, x, y = (
        glow(conditional=True, classifier_weight=0.5),
        images(4),
        torch.tensor([0, 1, 2, 0]),
    )
    terms = model.loss(Batch({"x": x, "y": y}))
    torch.testing.assert_close(terms["loss"], terms["bits_per_dim"] + 0.5 * terms["cross_entropy"])
    logits = model.class_logits(model.forward_flow(x / 17)[0])
    assert logits.shape == (4, 3)
    for p in model.classifier.parameters():
        p.data.zero_()  # which gives each of three classes one third
    assert model.loss(Batch({"x": x, "y": y}))["cross_entropy"].item() == pytest.approx(
        math.log2(3)
    )
    with pytest.raises(ValueError, match="classifier_weight > 0"):
        glow().class_logits(torch.zeros(1, 16))


def test_attribute_is_added_along_the_difference_of_mean_codes():
    model, x = glow(scale=0.05), images(6)
    assert torch.equal(model.manipulate(x[:1], x[1:3], x[1:3]), x[:1])
    assert torch.equal(model.manipulate(x[:1], x[1:2], x[:1]), x[1:2])


def test_every_level_returns_through_the_code():
    model = glow(scale=0.05)
    x = torch.arange(17.0).repeat(16).view(-1, 1, 4, 4).double()
    assert torch.equal(model.reconstruct(x), x)


def test_rows_do_not_talk():
    assert_rows_do_not_talk(glow().log_prob, images(6))


def test_warm_up_grows_the_learning_rate_linearly():
    model = Glow(PLAIN, width=8, optimiser="adamax", lr=0.1, warmup=4)
    trainer = fit(model, Given(PLAIN, images(16).float()), 2)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.075)
    assert type(trainer.optimizers[0]) is torch.optim.Adamax
    assert type(Glow(PLAIN, width=8).configure_optimizers()) is torch.optim.Adam


@pytest.mark.parametrize("options", [*VARIANTS, {"classifier_weight": 0.01}], ids=str)
def test_every_parameter_moves_with_every_option(options):
    torch.manual_seed(0)
    model = Glow(SPEC, width=8, depth=2, **options)
    model.initialise_from = lambda batch: None
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fit(model, Given(SPEC, images(64).float(), images(64).long()[:, 0, 0, 0] % 3, batch_size=16), 6)
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []


def test_other_data_are_refused_with_a_remedy():
    with pytest.raises(ValueError, match="glow models images"):
        Glow(DataSpec((2,)))
    with pytest.raises(
        ValueError, match=r"glow with scales=2 needs sides divisible by 4.*; lower scales"
    ):
        Glow(DataSpec((1, 6, 6), 17))
    with pytest.raises(ValueError, match=r"glow with conditional .* needs labels .*labelled data"):
        Glow(DataSpec((1, 8, 8), 17), conditional=True)
