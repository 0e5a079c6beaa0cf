"""PixelVAE is PixelVAE: its decoder is causal and a mass for every code, the code reaches every
pixel, and carries something.
"""

import math

import pytest
import torch
from torch.nn import functional as F

from tests.support import Given, fit
from zoo.check import likelihoods
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.data.digits import Digits
from zoo.nn.gated_conv import GatedStacks
from zoo.nn.gaussian import log_normal
from zoo.variational.pixelvae import PixelVAE, conv_encoder

DECODERS, CONDITIONS = ("small", "gated"), ("maps", "bias")

BINARY, COLOUR = DataSpec((1, 3, 3), 2), DataSpec((2, 3, 4), 3)
KINDS = [(d, c) for d in DECODERS for c in CONDITIONS]
every_kind = pytest.mark.parametrize(("decoder", "condition"), KINDS, ids=lambda v: v)


def pixelvae(spec: DataSpec = BINARY, seed: int = 0, scale: float = 1.5, **options) -> PixelVAE:
    torch.manual_seed(seed)
    model = (
        PixelVAE(spec, **{"latent": 2, "width": 16, "p": 6, "maps": 3, **options}).double().eval()
    )
    for p in model.parameters():
        p.data.mul_(scale)
    return model


def codes(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@every_kind
@pytest.mark.parametrize("spec", [BINARY, COLOUR], ids=str)
def test_a_logit_depends_on_earlier_pixels_only_whatever_the_code(spec, decoder, condition):
    options = {"decoder": decoder, "condition": condition}
    models = [pixelvae(spec, seed, p=8, **options).decoder for seed in range(4)]
    depends = likelihoods.dependence(models, z=codes(1))
    assert (
        not depends.triu().any() and likelihoods.coverage(depends) > 0.85
    )  # the small net's blind spot is missing
    x = torch.randint(
        spec.levels, (2, *spec.shape), generator=torch.Generator().manual_seed(0)
    ).double()
    assert likelihoods.leaks(models[0], x, z=codes(2)) == []


@every_kind
@pytest.mark.parametrize("spec", [BINARY, DataSpec((1, 2, 2), 3)], ids=str)
def test_probabilities_of_all_images_sum_to_one_for_every_code(spec, decoder, condition):
    model = pixelvae(spec, decoder=decoder, condition=condition)
    for z in 2 * codes(3):
        total = likelihoods.total_mass(
            lambda x, z=z: model.log_likelihood(x, z.expand(len(x), 2)), spec
        )
        assert total == pytest.approx(1, abs=1e-8)


@every_kind
def test_every_logit_depends_on_every_dimension_of_the_code(decoder, condition):
    seen = torch.zeros(
        32, 3, 1, 2, dtype=torch.bool
    )  # (D, P, 1, latent), over four initialisations
    for seed in range(4):
        model, x = (
            pixelvae(DataSpec((2, 4, 4), 3), seed, decoder=decoder, condition=condition),
            torch.zeros(1, 2, 4, 4).double(),
        )
        seen |= (
            torch.func.jacrev(lambda z, m=model, x=x: m.decoder.conditionals(x, z=z)[0])(codes(1))
            != 0
        )
    assert seen.all()


def test_maps_tell_positions_apart_and_a_bias_does_not():
    def first_layer(condition: str) -> torch.Tensor:
        model = pixelvae(DataSpec((1, 16, 16), 2), condition=condition)
        return model.decoder.conditionals(torch.zeros(1, 1, 16, 16).double() + 0.5, z=codes(1))[
            0, :, 0
        ].view(16, 16)[8:, 7:9]

    assert first_layer("bias").std() < 1e-12  # inputs of 0, and far from the border
    assert first_layer("maps").std() > 1e-3


def reach(network, decoder: str) -> torch.Tensor:
    """Where in a 13x13 image, over four initialisations, the logit at row 6, column 6 looks."""
    seen = torch.zeros(13, 13, dtype=torch.bool)
    for seed in range(4):
        model = pixelvae(DataSpec((1, 13, 13), 2), seed, decoder=decoder, **network)
        jacobian = torch.func.jacrev(
            lambda x, m=model: m.decoder.conditionals(x, z=codes(1))[0, 6 * 13 + 6]
        )(torch.randn(1, 1, 13, 13).double())
        seen |= (jacobian != 0).view(13, 13)
    return seen


def test_two_stacks_have_no_blind_spot():
    seen = reach({"n": 2}, "gated")
    assert seen[5, 6 + 5] and seen[5, 1] and seen[6, 1]
    assert reach({"n": 4}, "gated")[:6].all()


def test_small_decoder_has_a_blind_spot_whatever_its_depth():
    for n in (2, 6):
        seen = reach({"n": n}, "small")
        assert seen[5, 6 + 3] and not seen[5, 6 + 4 :].any()
        assert seen[4, 6 + 4] and seen[4:7, :6].any(1).all()


def test_without_kl_weight_the_encoder_learns_from_the_reconstruction_alone():
    model, x = pixelvae(), likelihoods.every_image(BINARY)[100:110]
    model.noise = Noise(0, dtype=torch.float64)
    model.ramp = lambda steps: 0.0
    grads = torch.autograd.grad(model.loss(Batch({"x": x}))["loss"], [*model.encoder.parameters()])
    assert all(g.abs().max() > 0 for g in grads)
    model.log_likelihood = lambda x, z, u=None: z.new_zeros(len(x))
    assert all(
        not g.any()
        for g in torch.autograd.grad(
            model.loss(Batch({"x": x}))["loss"], [*model.encoder.parameters()]
        )
    )


def test_warmup_weighs_the_kl_and_not_the_logged_bound():
    model, seen = PixelVAE(BINARY, width=8, p=4, warmup_steps=4), []
    inner = model.loss
    model.loss = lambda batch: seen.append(inner(batch)) or seen[-1]
    fit(model, Given(BINARY, likelihoods.every_image(BINARY).float()[::9]), 6)
    for alpha, terms in zip((0, 0.25, 0.5, 0.75, 1, 1), seen, strict=True):
        torch.testing.assert_close(terms["loss"], alpha * terms["kl"] - terms["recon"])
        torch.testing.assert_close(terms["nelbo"], terms["kl"] - terms["recon"])


def test_warmup_continues_where_a_checkpoint_left_it(tmp_path):
    data, weights = Given(BINARY, likelihoods.every_image(BINARY).float()[::9]), []
    trainer = fit(PixelVAE(BINARY, width=8, p=4, warmup_steps=8), data, 3)
    trainer.save_checkpoint(tmp_path / "at3.ckpt")
    model = PixelVAE(BINARY, width=8, p=4, warmup_steps=8)
    inner = model.ramp
    model.ramp = lambda steps: weights.append(inner(steps)) or weights[-1]
    fit(model, data, 6, ckpt_path=tmp_path / "at3.ckpt")
    assert weights == [3 / 8, 4 / 8, 5 / 8]


@every_kind
@pytest.mark.parametrize("spec", [BINARY, COLOUR], ids=str)
def test_cached_sampling_gives_the_integers_and_conditionals_of_full_passes(
    spec, decoder, condition
):
    model = pixelvae(spec, decoder=decoder, condition=condition)
    fast, slow = (
        model.sample(16, generator=torch.Generator().manual_seed(1), cache=c) for c in (True, False)
    )
    assert torch.equal(fast, slow) and fast.unique().numel() == spec.levels
    z = codes(16)
    with torch.no_grad():
        stream, whole = model.decoder.stream(16, z=z), model.decoder.conditionals(fast, z=z)
        params = next(stream)
        for step, d in enumerate(model.decoder.order.tolist()):
            torch.testing.assert_close(params, whole[:, d], rtol=0, atol=1e-10)
            if step + 1 < spec.dim:
                params = stream.send(fast.flatten(1)[:, d])


@every_kind
def test_log_probability_accumulated_while_drawing_is_that_of_one_pass(decoder, condition):
    model, z = pixelvae(COLOUR, decoder=decoder, condition=condition).float(), codes(8).float()
    u = torch.rand(24, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x, _ = model.decoder.generate(u, {"z": z})
        _, summed = model.decoder.generate(
            u, {"z": z}, given=x, known=torch.ones(8, 24, dtype=torch.bool)
        )
        torch.testing.assert_close(
            summed, model.log_likelihood(x.view(8, *COLOUR.shape), z), rtol=0, atol=1e-4
        )


@pytest.mark.parametrize("decoder", DECODERS)
def test_samples_follow_the_mean_over_codes_of_the_likelihood(decoder):
    spec = DataSpec((1, 2, 2), 3)
    model = pixelvae(spec, scale=2.5, decoder=decoder)
    images, drawn = (
        likelihoods.every_image(spec),
        model.sample(20_000, generator=torch.Generator().manual_seed(0)),
    )
    axis = torch.linspace(-5, 5, 41).double()
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        log_p = torch.stack([model.log_likelihood(x.expand(len(z), 1, 2, 2), z) for x in images])
    p = (log_p + log_normal(z).sum(1) + 2 * math.log(0.25)).logsumexp(1).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-3)
    assert likelihoods.total_variation(drawn, p, spec) < 0.05


@torch.no_grad()
def test_bounds_lie_below_the_likelihood():
    spec = DataSpec((1, 2, 2), 2)
    model, images = pixelvae(spec, scale=2.5), likelihoods.every_image(spec)
    for p in model.encoder.parameters():
        p.mul_(0.4)  # a posterior too narrow would leave the weights without a variance
    axis = torch.linspace(-6, 6, 61).double()
    z = torch.cartesian_prod(axis, axis)
    log_p = torch.stack([model.log_likelihood(x.expand(len(z), 1, 2, 2), z) for x in images])
    exact = (log_p + log_normal(z).sum(1) + 2 * math.log(0.2)).logsumexp(1)
    bound = torch.stack(
        [model.elbo(images, generator=torch.Generator().manual_seed(s)) for s in range(200)]
    ).mean(0)
    assert (bound < exact - 0.005).all()
    torch.testing.assert_close(model.importance_bound(images, 4000), exact, rtol=0, atol=0.05)


@torch.no_grad()
def test_decoding_takes_the_median_of_each_pixel_given_those_before():
    model, z = pixelvae(COLOUR, scale=2.0), codes(5)
    x = model.decode(z)
    cdf = model.decoder.conditionals(x, z=z).softmax(-1).cumsum(-1).view(5, -1, 3)
    v = x.flatten(1).long()[..., None]
    below = F.pad(cdf, (1, 0)).gather(-1, v)
    assert ((below <= 0.5) & (cdf.gather(-1, v) > 0.5)).all() and v.unique().numel() > 1
    assert torch.equal(model.decode(z), x) and torch.equal(model.from_codes(z), x)
    assert torch.equal(
        model.sample(5, mean_only=True, generator=torch.Generator().manual_seed(3)),
        model.decode(
            torch.randn(5, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        ),
    )


def test_reconstruction_reads_nothing_of_the_image_but_its_code():
    model, x = pixelvae(COLOUR), torch.randint(3, (6, 2, 3, 4)).double()
    code = model.encode(x)
    model.encode = lambda x: code
    a, b = (
        model.reconstruct(v, torch.Generator().manual_seed(0)) for v in (x, torch.zeros_like(x))
    )
    assert torch.equal(a, b) and not torch.equal(
        a, model.reconstruct(x, torch.Generator().manual_seed(1))
    )
    assert torch.equal(model.reconstruct(x), model.decode(code))


def test_along_an_interpolation_only_the_code_moves():
    model = pixelvae(DataSpec((1, 4, 4), 17))
    a, b = torch.randint(17, (2, 3, 1, 4, 4)).double()
    same = model.interpolate(a, a, 4, torch.Generator().manual_seed(0))
    assert torch.equal(same, same[:, :1].expand_as(same))  # the same detail in each frame
    path = model.interpolate(a, b, 4, torch.Generator().manual_seed(0))
    assert torch.equal(path[:, 0], model.reconstruct(a, torch.Generator().manual_seed(0)))
    assert torch.equal(path[:, -1], model.reconstruct(b, torch.Generator().manual_seed(0)))
    assert torch.equal(model.interpolate(a, b, 2)[:, 1], model.reconstruct(b))


def test_evaluation_names_the_share_of_the_code_and_what_is_left_without_it():
    model, x = pixelvae(), likelihoods.every_image(BINARY)[::60]
    found = model.evaluate(Batch({"x": x}), torch.Generator().manual_seed(0))
    elbo = model.elbo(x, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found["kl_fraction"] * -elbo, found["kl"])
    logits = model.decoder.conditionals(x, z=torch.zeros(len(x), 2).double())[..., 0]
    torch.testing.assert_close(
        found["no_z_nll"],
        F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="none").sum(1),
    )


def seen(network: torch.nn.Sequential, x: torch.Tensor) -> list[torch.Tensor]:
    """What the weighted layers give."""
    found = []
    for layer in network:
        x = layer(x)
        found += [x] if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear) else []
    return found


def test_paper_network_is_the_authors():
    encoder = conv_encoder((1, 28, 28), 32, 32)
    assert [tuple(p.shape[:2]) for p in encoder.parameters() if p.ndim > 1] == [
        (32, 1),
        (32, 32),
        (32, 32),
        (64, 32),
        (64, 64),
        (64, 64),
        (64, 64),
        (64, 64),
        (32, 4 * 4 * 64),
    ]
    sides = [h.shape[-1] for h in seen(encoder, torch.zeros(1, 1, 28, 28))[:-1]]
    assert sides == [28, 14, 14, 7, 7, 4, 4, 4]
    model = PixelVAE(
        DataSpec((1, 28, 28), 2),
        16,
        "conv",
        32,
        decoder="gated",
        condition="bias",
        n=12,
        p=16,
        kernel=5,
    )
    assert sum(isinstance(m, torch.nn.Conv2d) for m in model.encoder) == 8
    network = model.decoder.network
    assert isinstance(network, GatedStacks) and len(network.layers) == 13
    assert [layer.horizontal.kernel_size for layer in network.layers] == [(1, 7)] + 12 * [(1, 5)]
    assert [layer.residual for layer in network.layers] == [False] + 12 * [True]
    assert (
        sum("condition_" in name for name, _ in network.named_parameters()) == 25
    )  # z in both stacks, the last vertical one is unused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"net": "deep"}, "net is one of mlp, conv, got 'deep'"),
        ({"decoder": "big"}, "decoder is one of small, gated, got 'big'"),
        ({"condition": "no"}, "condition is one of maps, bias, got 'no'"),
        ({"latent": 0}, "latent is at least 1, got 0"),
        ({"warmup_steps": -1}, "warmup_steps is not negative, got -1"),
        ({"k": 4}, "odd"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=f"pixelvae: .*{message}"):
        PixelVAE(BINARY, **options)


@pytest.mark.parametrize("spec", [DataSpec((2,)), DataSpec((1, 4, 4), None)], ids=str)
def test_real_values_are_refused(spec):
    with pytest.raises(ValueError, match="pixelvae"):
        PixelVAE(spec)


@every_kind
def test_rows_do_not_talk(decoder, condition):
    model = pixelvae(decoder=decoder, condition=condition)
    likelihoods.assert_rows_do_not_talk(
        model.importance_bound, likelihoods.every_image(BINARY)[:300:37]
    )


@pytest.mark.slow
def test_with_the_code_digits_are_likelier_than_by_the_same_decoder_without_it():
    data, found = Digits(binarize="threshold", batch_size=64), []
    x = data.examples(split="val")["x"]
    for use in (True, False):
        torch.manual_seed(0)
        model = PixelVAE(data.spec)
        if not use:  # z = 0 throughout: the maps still tell positions apart
            conditionals = model.decoder.conditionals
            model.decoder.conditionals = lambda x, z, inner=conditionals: inner(x, z=z * 0)
        fit(model, data, 1400)
        with torch.no_grad():
            kl = model.eval().kl(model.posterior(x)).sum(1)
            found.append(
                [v.mean().item() for v in (model.elbo(x), model.importance_bound(x, 50), kl)]
            )
    (elbo, bound, kl), (without, exact, collapsed) = found
    assert (
        without == pytest.approx(exact, abs=1e-3) and collapsed < 0.01
    )  # -17.92, -17.59, -17.84 on three seeds
    assert (
        elbo > without and bound > without + 0.6 and kl > 1
    )  # -17.36, -17.40, -17.40; -16.62, -16.57, -16.66; 4.3, 4.3, 4.5
