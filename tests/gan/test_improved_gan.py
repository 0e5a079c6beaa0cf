"""Improved GAN is improved GAN: K + 1 classes with the last logit fixed, feature matching,
minibatch discrimination, historical averaging, one-sided smoothing, virtual batch norm."""

import pytest
import torch
from torch import nn

from tests.support import Given, fit
from zoo.bases import LoopOptions
from zoo.check.processes import ddp_differences
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.gan.improved_gan import ImprovedGAN, is_real
from zoo.nn.minibatch import MinibatchDiscrimination
from zoo.nn.virtual_batch_norm import Referenced, VirtualBatchNorm

SPEC = DataSpec((1, 8, 8), 17, 3)


def batch(n: int = 12) -> Batch:
    x = torch.randint(0, 17, (n, 1, 8, 8), generator=torch.Generator().manual_seed(1)).double()
    return Batch({"x": x, "y": torch.arange(n) % 3, "index": torch.arange(n)})


def make(spec: DataSpec = SPEC, **options) -> ImprovedGAN:
    torch.manual_seed(0)
    model = ImprovedGAN(spec, **{"latent": 4, "width": 4, **options}).double()
    model.noise = Noise(3, "test", dtype=torch.float64)
    return model


def given_logits(
    model: ImprovedGAN, real: torch.Tensor, fake: torch.Tensor, **rows
) -> dict[str, torch.Tensor]:
    """D's terms where its logits are these."""
    model.d.both = lambda real_, made: (real, fake)
    n = len(real)
    return model.discriminator_loss(
        Batch({"x": real, "y": torch.arange(n) % 3, "index": torch.arange(n), **rows})
    )


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(2, 8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_losses_are_those_of_a_softmax_over_k_plus_one_classes_with_the_last_logit_zero(logits):
    terms = given_logits(make(labels=None), *logits)
    p, q = (torch.cat([v, torch.zeros(8, 1)], 1).exp() for v in logits)
    p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    y = torch.arange(8) % 3
    torch.testing.assert_close(
        terms["unl"], -0.5 * (1 - p[:, 3]).log().mean() - 0.5 * q[:, 3].log().mean()
    )
    torch.testing.assert_close(terms["sup"], -(p[torch.arange(8), y] / (1 - p[:, 3])).log().mean())
    torch.testing.assert_close(terms["loss"], terms["sup"] + terms["unl"])
    full = (
        -p[torch.arange(8), y].log().mean()
    )  # the cross-entropy over K + 1 classes of a labelled row
    torch.testing.assert_close(full, terms["sup"] - (1 - p[:, 3]).log().mean())


def test_a_shift_of_all_logits_changes_who_is_real_and_not_which_class(logits):
    plain, shifted = (given_logits(make(), logits[0] + c, logits[1]) for c in (0.0, 1.5))
    torch.testing.assert_close(plain["sup"], shifted["sup"])
    assert shifted["unl"] < plain["unl"] - 0.05
    model = make()
    before = is_real(model.d(model.g(model.codes(4))))
    model.noise.draws = 0
    with torch.no_grad():
        model.d.net.end.b += 1.5
    torch.testing.assert_close(is_real(model.d(model.g(model.codes(4)))), before + 1.5)


def test_large_logits_stay_finite(logits):
    terms = given_logits(make(), logits[0] * 1e4, logits[1] * 1e4)
    assert all(torch.isfinite(v) for v in terms.values())


@pytest.mark.parametrize(("norm", "expected"), [("l1", 2.0), ("l2", 5 * 4.0)])
def test_equal_mean_features_cost_nothing_however_samples_differ(norm, expected):
    model, real = make(fm_norm=norm), torch.randn(8, 5, dtype=torch.float64)
    made = (real.mean(0) + (real - real.mean(0)).flip(0) * 3).requires_grad_()
    loss = model.matching(real, made)
    assert loss < 1e-14
    if norm == "l2":  # the absolute value has no gradient at 0
        assert torch.autograd.grad(loss, made)[0].abs().max() < 1e-14
    torch.testing.assert_close(
        model.matching(real, real + 2.0), torch.tensor(expected, dtype=torch.float64)
    )


def test_the_generator_matches_features_under_the_last_layer_of_a_fresh_minibatch():
    model, rows = make(), batch()
    loss = model.generator_loss(rows)["loss"]
    model.noise.draws = 0
    f = model.d.net.features
    expected = (
        (f(SPEC.to_signed(rows["x"])).mean(0) - f(model.g(model.noise.normal(12, 4))).mean(0))
        .abs()
        .mean()
    )
    torch.testing.assert_close(loss, expected)
    grads = torch.autograd.grad(loss, [*model.d.net.end.parameters()], allow_unused=True)
    assert all(g is None for g in grads)  # not of the logits
    assert [bool(p.reads) for p in model.phases()] == [True, True] and [
        bool(p.reads) for p in make(g_loss="nonsat").phases()
    ] == [True, False]


def test_without_matching_the_generator_wants_to_be_called_real():
    for name, price in (("nonsat", lambda d: -d.log()), ("minimax", lambda d: (1 - d).log())):
        model = make(g_loss=name)
        loss = model.generator_loss(Batch({}, 8))["loss"]
        model.noise.draws = 0
        z = model.d(model.g(model.codes(8))).exp().sum(1)
        torch.testing.assert_close(loss, price(z / (z + 1)).mean())


def test_minibatch_features_count_the_near_rows():
    layer = MinibatchDiscrimination(6, kernels=4, dims=3).double()
    f = torch.randn(7, 6, dtype=torch.float64)
    m = torch.einsum("ia,akc->ikc", f, layer.t)
    expected = torch.stack(
        [sum((-(m[i] - m[j]).abs().sum(1)).exp() for j in range(7) if j != i) for i in range(7)]
    )
    torch.testing.assert_close(layer(f), expected)
    order = torch.randperm(7)
    torch.testing.assert_close(layer(f[order]), layer(f)[order])
    torch.testing.assert_close(
        layer(f[:1].expand(7, -1)), torch.full((7, 4), 6.0, dtype=torch.float64)
    )
    assert layer(torch.arange(7.0).double()[:, None] * 1e5 * torch.ones(6)).abs().max() < 1e-12


def test_minibatch_features_see_the_rows_of_other_processes():
    layer = MinibatchDiscrimination(6, kernels=4, dims=3).double()
    f = torch.randn(8, 6, dtype=torch.float64)
    halves = [layer(part, gather=lambda own: f @ layer.t.flatten(1)) for part in f.chunk(2)]
    torch.testing.assert_close(torch.cat(halves), layer(f))
    assert not torch.allclose(torch.cat([layer(part) for part in f.chunk(2)]), layer(f))


@pytest.mark.parametrize("cross_rank", ["gather", "local"])
def test_rows_of_other_processes_count_in_minibatch_discrimination_unless_local(cross_rank):
    model, v = make(kernels=6, cross_rank=cross_rank), SPEC.to_signed(batch()["x"])
    layer = model.d.net.minibatch
    model.all_rows = lambda own: model.d.net.features(v) @ layer.t.flatten(1)  # of all processes
    halves = torch.cat([model.d(part) for part in v.chunk(2)])
    model.all_rows = lambda own: own
    assert torch.allclose(halves, model.d(v)) == (cross_rank == "gather")


def test_real_and_generated_minibatches_are_discriminated_apart():
    model, rows = make(kernels=6), batch()
    assert model.d.net.end.v.shape[1] == 4 + 6  # f and o
    both, seen = model.d.both, []
    model.d.both = lambda *groups: seen.append(both(*groups)) or seen[-1]
    model.discriminator_loss(rows)
    ((real, _),) = seen
    model.noise.draws = 0
    torch.testing.assert_close(real, model.d(SPEC.to_signed(rows["x"])))
    others = model.d(torch.cat([SPEC.to_signed(rows["x"]), model.g(model.codes(12))]))[:12]
    assert not torch.allclose(real, others)


def test_virtual_batch_norm_uses_the_row_and_the_reference_only():
    layer = VirtualBatchNorm(3, 5).double()
    ref, x, other = (torch.randn(n, 3, 2, 2, dtype=torch.float64) * 2 + 1 for n in (5, 4, 5))
    out = layer(torch.cat([ref, x]))
    for i in range(4):
        torch.testing.assert_close(
            layer(torch.cat([ref, x[i : i + 1]]))[5:], out[5 + i : 6 + i]
        )  # whatever else is in its batch
        both = torch.cat([ref, x[i : i + 1]])
        mean, var = (
            both.mean((0, 2, 3), keepdim=True),
            both.var((0, 2, 3), keepdim=True, correction=0),
        )
        torch.testing.assert_close(out[5 + i : 6 + i], (x[i : i + 1] - mean) / (var + 1e-5).sqrt())
    plain = nn.BatchNorm2d(3).double()
    torch.testing.assert_close(out[:5], plain(ref))  # the reference is normalised by itself
    assert not torch.allclose(layer(torch.cat([other, x]))[5:], out[5:])


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4), (torch.bfloat16, 0.02)]
)
def test_virtual_batch_norm_stays_exact_far_from_zero(dtype, tolerance):
    layer, n = VirtualBatchNorm(3, 6), 6
    h = (5 + 0.1 * torch.randn(n + 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))).to(
        dtype
    )
    out = layer.to(dtype if dtype == torch.float64 else torch.float32)(h)
    exact = h.double()
    for i in range(4):
        both = torch.cat([exact[:n], exact[n + i : n + i + 1]])
        mean, var = (
            both.mean((0, 2, 3), keepdim=True)[0],
            both.var((0, 2, 3), keepdim=True, correction=0)[0],
        )
        expected = (exact[n + i] - mean) / (var + 1e-5).sqrt()
        assert (
            out.dtype == dtype
            and ((out[n + i].double() - expected) / expected.abs().clamp(min=1)).abs().max()
            < tolerance
        )


def test_a_generator_with_virtual_batch_norm_makes_each_sample_alone_from_a_fixed_reference():
    model = make(norm_g="virtual", reference=6)
    assert isinstance(model.g, Referenced) and not any(
        isinstance(m, nn.BatchNorm2d) for m in model.g.modules()
    )
    z = torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(model.g(z)[:2], model.g(z[:2]))
    reference = model.state_dict()["g.z"].clone()
    before = model.g(z)
    fit(
        make(norm_g="virtual", reference=6).float(),
        Given(SPEC, batch(32)["x"].float(), batch(32)["y"]),
        1,
    )
    assert torch.equal(model.g.z, reference) and reference.shape == (6, 4)
    model.g.z.normal_()
    assert not torch.allclose(model.g(z), before)


def test_historical_averaging_pulls_to_the_mean_of_past_parameters():
    model, seen = make(history_d=0.3, history_g=0.1).float(), {"d": [], "g": []}
    after = model.after_step
    model.after_step = lambda player: (
        after(player),
        seen[player].append(model.flat(player).detach().clone()),
    )
    fit(model, Given(SPEC, batch(48)["x"].float(), batch(48)["y"]), 3)
    for player, lam in (("d", 0.3), ("g", 0.1)):
        mean = torch.stack(seen[player]).mean(0)
        torch.testing.assert_close(model.state_dict()[f"past_{player}"], mean)
        with torch.no_grad():
            for p in model.parameters_of(player):
                p.add_(0.1)
        cost = model.averaged(player, {"loss": torch.zeros(())})["loss"]
        grads = torch.autograd.grad(cost, [*model.parameters_of(player)])
        pull = 2 * lam * (model.flat(player) - mean)
        torch.testing.assert_close(torch.cat([g.flatten() for g in grads]), pull.detach())
        assert model.terms[f"history_{player}"] > 0


def test_with_smoothed_labels_the_best_discriminator_is_a_p_over_p_plus_q():
    p, q = torch.rand(
        2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).softmax(1)
    table = torch.zeros(
        6, 3, dtype=torch.float64, requires_grad=True
    )  # K logits of each of six points
    model = make(loop=LoopOptions(label_smooth=0.9))
    optimiser = torch.optim.LBFGS(
        [table],
        max_iter=300,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimiser.zero_grad()
        on_real, on_fake = model.d.prices(table.logsumexp(1), table.logsumexp(1))
        loss = (p * on_real + q * on_fake).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    torch.testing.assert_close(
        table.logsumexp(1).sigmoid().detach(), 0.9 * p / (p + q), atol=1e-5, rtol=0
    )


def test_a_few_labels_stand_for_all_rows_and_the_others_are_not_read():
    model, rows = make(labels=4), batch()
    model.size.fill_(12)
    logits = torch.randn(12, 3, dtype=torch.float64)
    sup = model.label_cost(logits, rows)
    torch.testing.assert_close(sup, nn.functional.cross_entropy(logits[:4], rows["y"][:4]))
    wrong = Batch(rows | {"y": torch.where(rows["index"] < 4, rows["y"], (rows["y"] + 1) % 3)})
    assert model.label_cost(logits, wrong) == sup


def test_the_discriminators_layers_start_scaled_by_the_data():
    model, x = make(), batch(60)["x"]
    model.initialise_from(Batch({"x": x}))
    h = SPEC.to_signed(x)
    for stage in model.d.net.stages:
        pre = stage[0](h)
        torch.testing.assert_close(
            pre.mean((0, 2, 3)), torch.zeros(pre.shape[1], dtype=torch.float64), atol=1e-9, rtol=0
        )
        torch.testing.assert_close(
            pre.std((0, 2, 3)), torch.ones(pre.shape[1], dtype=torch.float64), atol=1e-2, rtol=0
        )
        h = stage(h)
    assert model.size == 60 and model.d.net.training


def test_the_last_layer_starts_scaled_by_minibatches_as_large_as_trainings():
    x = batch(96)["x"].float()
    for accumulate in (1, 2):
        rates = {"lr_d": 1e-30, "lr_g": 1e-30}  # a step that moves nothing
        model = make(kernels=8, **rates, loop=LoopOptions(accumulate=accumulate)).float()
        fit(model, Given(SPEC, x, batch(96)["y"], batch_size=16), 1)
        logits = torch.cat(
            [model.eval().d(SPEC.to_signed(rows)) for rows in x.split(16 // accumulate)]
        )
        assert logits.mean(0).abs().max() < 1e-3 and (logits.std(0) - 1).abs().max() < 1e-2
        together = model.d(SPEC.to_signed(x))
        assert together.mean(0).abs().max() > 0.1  # more rows at once are counted more often


def test_paper_discriminator_is_the_authors():
    with torch.device("meta"):
        model = ImprovedGAN(
            DataSpec((3, 32, 32), 256, 10),
            arch="paper",
            width=128,
            width_d=96,
            latent=100,
            kernel=5,
            norm_g="batch",
        )
        convs = [
            tuple(m.v.shape[:1]) + tuple(m.v.shape[2:3])
            for m in model.d.net.modules()
            if hasattr(m, "measuring")
        ]
        f = model.d.net.features(torch.zeros(2, 3, 32, 32))
    assert convs == [(96, 3)] * 3 + [(192, 3)] * 4 + [(192, 1)] * 2 + [(10, 1)] and f.shape == (
        2,
        192,
    )
    assert [m.p for m in model.d.net.modules() if isinstance(m, nn.Dropout)] == [
        0.2,
        0.5,
        0.5,
    ]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.d.net.modules())
    small = ImprovedGAN(DataSpec((3, 16, 16), 256, 10), arch="paper", width=64)
    assert all(
        m.weight.std().item() == pytest.approx(0.05, rel=0.1)
        for m in small.g.modules()
        if hasattr(m, "output_padding")
    )


def test_rates_stay_and_then_fall_to_zero():
    model = make(k=2, decay_start=2, decay_end=4, lr_d=0.1, lr_g=0.1).float()
    fit(model, Given(SPEC, batch(96)["x"].float(), batch(96)["y"]), 3)
    assert [o.param_groups[0]["lr"] for o in model.optimizers()] == [pytest.approx(0.05)] * 2


def test_data_without_labels_make_a_plain_discriminator_that_cannot_classify():
    model = make(DataSpec((2,)))
    x = torch.randn(8, 2, dtype=torch.float64)
    assert model.d(x).shape == (8, 1) and "sup" not in model.discriminator_loss(
        Batch({"x": x, "index": torch.arange(8)})
    )
    with pytest.raises(ValueError, match="needs labels"):
        model.classify(x)


def test_unlabelled_rows_weigh_as_they_are_asked_to(logits):
    for weight in (0.0, 0.4):
        terms = given_logits(make(labels=None, w_u=weight), *logits)
        torch.testing.assert_close(terms["loss"], terms["sup"] + weight * terms["unl"])
    assert terms["unl"] > 0.1


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_the_noise_of_ds_layers_is_that_of_training_alone_for_data_and_for_samples(noise):
    model, rows = make(noise=noise), batch()
    v = SPEC.to_signed(rows["x"])
    again = [model.d(v).detach() for _ in range(2)]
    assert torch.equal(*again) == (noise == 0)
    features, given = model.d.net.features, []
    model.d.net.features = lambda x, source=None: given.append(source) or features(x, source)
    model.generator_loss(rows)
    assert given == [model.noise, model.noise]
    model.eval()
    assert torch.equal(model.d(v), model.d.net(v)) and torch.equal(model.d(v), model.d(v))


def test_only_the_players_that_are_asked_are_averaged_and_logged_by_name():
    x, y = batch(48)["x"].float(), batch(48)["y"]
    for options, found in (
        ({"history_g": 0.5}, {"history_g"}),
        ({"history_d": 0.5}, {"history_d"}),
        ({}, set()),
    ):
        model = make(**options).float()
        fit(model, Given(SPEC, x, y), 3)
        assert {name for name in model.terms if name.startswith("history")} == found


def test_held_out_rows_are_real_by_all_logits_and_of_their_likeliest_class():
    model, rows = make().eval(), batch(6)
    out = torch.tensor(
        [[-1.0, 2, 0], [3, -4, 1], [-5, -4, -3], [1, 2, 3], [-9, -1, -1], [0, -1, 2]]
    )
    model.d.net.forward = lambda x: out.double()
    values = model.evaluate(rows)  # of classes 0, 1, 2, 0, 1, 2
    assert values["acc"].tolist() == [0, 0, 1, 0, 1, 1]
    real = (out.double().exp().sum(1) > 1).double()  # Z / (Z + 1) above a half
    assert torch.equal(values["d_acc_real"], real) and real.tolist() == [1, 1, 0, 1, 0, 1]


def test_r1_is_of_the_logit_of_being_real():
    model, rows = make(loop=LoopOptions(r1=3.0)), batch()
    r1 = model.discriminator_loss(rows)["r1"]
    x = SPEC.to_signed(rows["x"]).requires_grad_()
    (slope,) = torch.autograd.grad(model.d.net(x).exp().sum(1).log().sum(), x)
    torch.testing.assert_close(r1, 1.5 * slope.square().sum((1, 2, 3)).mean())


def test_rates_of_both_players_stay_until_the_start_and_end_at_zero():
    model = make(k=3, decay_start=4, decay_end=8, lr_d=0.2, lr_g=0.1, beta1=0.3)
    made = model.optimisers()
    assert all(o.defaults["betas"] == (0.3, 0.999) for o in made.values())
    schedules, seen = model.schedulers(made), []
    for _ in range(9):
        for player in ("d", "d", "d", "g"):
            made[player].step()
            schedules[player].step()
        seen.append([made[p].param_groups[0]["lr"] for p in ("d", "g")])
    shares = [1, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0]
    assert seen == [[pytest.approx(0.2 * s), pytest.approx(0.1 * s)] for s in shares]


def test_the_width_of_d_is_its_own_where_it_is_asked():
    model = make(width=4, width_d=6)
    assert model.d.net.stages[0][0].v.shape[0] == 6
    assert [m.in_channels for m in model.g.modules() if hasattr(m, "output_padding")][-1] == 4


def test_what_has_no_meaning_is_refused():
    for options, message in (
        ({"loop": LoopOptions(spectral_norm=True)}, "spectral_norm"),
        ({"kernels": 4, "loop": LoopOptions(r1=1.0)}, "couples"),
        ({"norm_g": "virtual", "spec": DataSpec((2,))}, "images"),
        ({"decay_end": 3, "decay_start": 5}, "later decay_end"),
        ({"decay_start": 5}, "later decay_end"),
        ({"arch": "paper"}, "--data.size=16"),
        ({"kernels": 4, "loop": LoopOptions(separate_batches=False)}, "rows of one kind"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            ImprovedGAN(**{"spec": SPEC, **options})
        assert "improved_gan" in str(caught.value)
    for side in (12, 20):
        model = ImprovedGAN(DataSpec((1, side, side), 17, 3), arch="paper", width=4)
        assert model.d(model.g(model.codes(2))).shape == (2, 3)


@pytest.mark.ddp
def test_minibatch_discrimination_of_two_processes_counts_all_their_rows_unless_local():
    options = "--model.kernels=4 --model.norm_g=virtual --model.history_d=0.1 --model.cross_rank="
    gather, local = (f"improved_gan {options}{name}" for name in ("gather", "local"))
    found = ddp_differences((gather, local), steps=2)
    assert not isinstance(found[gather], str) and not isinstance(found[local], str), found
    assert found[gather][0] < 1e-12 < 1e-6 < found[local][0]
