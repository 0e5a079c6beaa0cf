"""The IAF posterior is a density: steps strictly autoregressive, the log-determinant that of the
Jacobian, free bits of the mean.
"""

import math

import pytest
import torch

from tests.support import Given, fit
from zoo import check
from zoo.check import likelihoods
from zoo.core import Batch, DataSpec
from zoo.core.likelihood import RowNoise
from zoo.core.noise import Noise
from zoo.nn.gaussian import log_normal
from zoo.nn.prior import Draw
from zoo.variational.iaf_vae import IAFVAE, ConvStep, Flow, MaskedWNConv, Step, WNConv
from zoo.variational.vae import VAE

SPEC = DataSpec((1, 2, 3), 2)
IMAGES = likelihoods.every_image(SPEC)
PICTURES = DataSpec((1, 8, 8), 17)


def iaf(seed: int = 0, **options) -> IAFVAE:
    torch.manual_seed(seed)
    model = (
        IAFVAE(SPEC, **{"latent": 2, "width": 16, "hidden": 8, "context": 4, **options})
        .double()
        .eval()
    )
    for p in model.parameters():
        p.data.mul_(1.7)
    return model


def resnet(spec=PICTURES, start: bool = True, **options) -> IAFVAE:
    torch.manual_seed(0)
    small = {
        "net": "resnet",
        "latent": 2,
        "width": 8,
        "hidden": 8,
        "levels": 2,
        "blocks": 2,
        "steps": 1,
    }
    model = IAFVAE(spec, **{**small, **options}).double().eval()
    with torch.no_grad():
        x = torch.randint(spec.levels, (32, *spec.shape)).double()
        if start:
            model.initialise_from(Batch({"x": x}))
    return model


@pytest.mark.parametrize(
    "step", [Step(6, 3, 20, 1.5).double(), ConvStep(2, 8, 1.5).double()], ids=["vectors", "maps"]
)
def test_steps_are_strictly_autoregressive_whatever_the_context(step):
    shape, context = ((6,), (3,)) if isinstance(step, Step) else ((2, 2, 3), (8, 2, 3))
    d = math.prod(shape)
    order = (
        torch.arange(d) if isinstance(step, Step) else torch.arange(d).view(2, 6).T.flatten()
    )  # channels of a position together
    for h in (torch.zeros(1, *context).double(), torch.randn(1, *context).double()):
        out = lambda z, h=h: torch.cat([v.flatten() for v in step(z.view(1, *shape), h)])  # noqa: E731
        jacobian = torch.autograd.functional.jacobian(out, torch.randn(d).double()).view(2, d, d)[
            :, order
        ][:, :, order]
        assert torch.equal(jacobian, jacobian.tril(-1))
        assert (jacobian[0, -1, :-1] != 0).any() and (jacobian[1].abs().sum(1)[1:] > 0).all()
    first = step(torch.zeros(1, *shape).double(), h)[0].flatten()[0]
    assert (
        first != step(torch.zeros(1, *shape).double(), h + 1)[0].flatten()[0]
    )  # the context reaches the first element too


@pytest.mark.parametrize("kind", ["sigmoid", "affine"])
@pytest.mark.parametrize("maps", [False, True])
def test_log_density_falls_by_the_log_determinant_of_the_jacobian(kind, maps):
    torch.manual_seed(1)
    if maps:
        shape, h = (2, 2, 2), torch.randn(1, 6, 2, 2).double()
        flow = Flow([ConvStep(2, 6, 0.5) for _ in range(3)], kind, (1, 2, 3), (2, 3)).double()
    else:
        shape, h = (5,), torch.randn(1, 3).double()
        flow = Flow([Step(5, 3, 12, 0.5) for _ in range(3)], kind, (-1,), ()).double()
    for p in flow.parameters():
        p.data.mul_(2)
    mu, log_var, eps = torch.randn(3, 1, *shape).double()

    def posterior(eps):
        z = mu + (log_var / 2).exp() * eps
        return flow(z, log_normal(z, mu, log_var), h)

    log_q = posterior(eps)[1]
    d = math.prod(shape)
    jacobian = torch.autograd.functional.jacobian(lambda e: posterior(e)[0], eps).view(d, d)
    want = log_normal(eps).sum() - torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(log_q.sum(), want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["sigmoid", "affine"])
def test_posterior_integrates_to_one(kind):
    model, x = iaf(iaf=kind), IMAGES[11:12]
    mu, log_var, h = model.encoder(model.spec.to_signed(x)).split([2, 2, 4], 1)
    log_var = 10 * torch.tanh(log_var / 10)
    axis = torch.linspace(-7, 7, 401).double()
    eps = torch.cartesian_prod(axis, axis)
    z0 = mu + (log_var / 2).exp() * eps
    z, log_q = model.flows[0](z0, log_normal(z0, mu, log_var), h.expand(len(eps), -1))
    corner = z.view(401, 401, 2)
    right, up = corner[1:, :-1] - corner[:-1, :-1], corner[:-1, 1:] - corner[:-1, :-1]
    area = (
        right[..., 0] * up[..., 1] - right[..., 1] * up[..., 0]
    ).abs()  # the image of each cell of the grid
    mass = (log_q.sum(1).exp().view(401, 401)[:-1, :-1] * area).sum()
    assert mass.item() == pytest.approx(1, abs=1e-3)


def test_the_order_is_reversed_between_steps():
    flow = Flow([Step(4, 2, 10, 1.5) for _ in range(2)], "sigmoid", (-1,), ()).double()
    z = torch.randn(1, 4).double()
    jacobian = torch.autograd.functional.jacobian(
        lambda v: flow(v, v, torch.zeros(1, 2).double())[0], z
    ).view(4, 4)
    # z_4's first element is the first to be transformed by step 2, after step 1 had let it depend
    # on all the others
    assert (jacobian[0] != 0).all() and (jacobian[-1] != 0).any()


def test_no_steps_is_the_vae_with_a_sampled_kl():
    model = iaf(steps=0)
    vae = VAE(SPEC, latent=2, width=16, kl_mc=True).double()
    state = {
        k: v
        for k, v in model.state_dict().items()
        if k in vae.state_dict() and v.shape == vae.state_dict()[k].shape
    }
    last = next(
        k for k in reversed(model.state_dict()) if k.startswith("encoder") and k.endswith("weight")
    )
    for key in (last, last.replace("weight", "bias")):
        state[key] = model.state_dict()[key][:4]  # without the context
    vae.load_state_dict({**vae.state_dict(), **state})
    losses = []
    for m in (model, vae):
        m.noise = Noise(3, dtype=torch.float64)
        losses.append(m.loss(Batch({"x": IMAGES}))["loss"])
    torch.testing.assert_close(*losses)


def test_free_bits_are_of_the_mean_over_the_minibatch():
    model, lam = iaf(free_bits=0.5), 0.5
    for rows, passes in (
        (torch.tensor([[0.0], [2 * lam + 0.01]]), True),
        (torch.tensor([[0.0], [2 * lam - 0.01]]), False),
    ):
        ratio = rows.double().requires_grad_()
        model.weigh = lambda x, k, source, y=None, r=ratio: (torch.zeros(1, 2).double(), r[None])
        terms = model.loss(Batch({"x": IMAGES[:2]}))
        (gradient,) = torch.autograd.grad(terms["loss"], ratio)
        assert torch.equal(gradient, torch.full((2, 1), 0.5 if passes else 0.0).double())
        assert terms["loss"].item() == pytest.approx(max(rows.mean().item(), lam))
        assert terms["nelbo"].item() == pytest.approx(rows.mean().item())
        assert terms["kl"].item() == pytest.approx(rows.mean().item()) and int(
            terms["free_groups"]
        ) == (not passes)


@pytest.mark.parametrize("steps", [0, 2])
def test_bounds_are_below_the_likelihood(steps):
    model, x = iaf(steps=steps), IMAGES[::7]
    with torch.no_grad():
        z = torch.randn(100_000, 2).double()
        exact = torch.stack(
            [model.log_likelihood(v.expand(len(z), 1, 2, 3), z).exp().mean() for v in x]
        ).log()
        bound = torch.stack(
            [model.elbo(x, generator=torch.Generator().manual_seed(s)) for s in range(300)]
        )
        tight = torch.stack(
            [model.importance_bound(x, 2000, torch.Generator().manual_seed(s)) for s in range(25)]
        )
    assert (bound.mean(0) < exact + 4 * bound.std(0) / math.sqrt(300)).all()
    torch.testing.assert_close(tight.exp().mean(0).log(), exact, atol=0.06, rtol=0)


# -- ResNet --------------------------------------------------------------------------------------
def test_samples_of_the_resnet_do_not_ask_the_posterior():
    model = resnet()
    before = model.sample(4, generator=torch.Generator().manual_seed(0))
    for part in (model.encoder, model.flows):
        for p in part.parameters():
            p.data.normal_()
    for layer in model.decoder.layers:  # nor the posterior's part of the top-down pass
        z, width = layer.sizes[0], layer.sizes[-1]
        assert layer.conv.g.shape == (4 * z + 2 * width,)
        layer.conv.g.data[2 * z : 4 * z + width] *= 3
    assert torch.equal(before, model.sample(4, generator=torch.Generator().manual_seed(0)))
    assert not torch.equal(before, model.sample(4, generator=torch.Generator().manual_seed(1)))


def test_posterior_of_zeroed_heads_is_the_prior():
    model, x = resnet(steps=0), torch.randint(17, (3, 1, 8, 8)).double()
    for layer in (*model.encoder.layers, *model.decoder.layers):
        heads = (
            slice(0, 2 * layer.sizes[0]) if len(layer.sizes) == 4 else slice(0, 4 * layer.sizes[0])
        )
        layer.conv.g.data[heads] = 0
        layer.conv.b.data[heads] = 0
    recon, ratio = model.weigh(x, 5, RowNoise(x))
    assert ratio.abs().max() < 1e-12 and (recon < 0).all()


def test_a_code_is_decoded_as_it_was_drawn():
    model, x = resnet(), torch.randint(17, (3, 1, 8, 8)).double()
    out, codes, _ = model.draw(x, 2, RowNoise(x))
    assert codes.shape == (6, model.latent) and model.latent == 2 * (2 * 2 + 2 * 2 + 4 * 4 + 4 * 4)
    torch.testing.assert_close(model.decoder(codes), out)
    z = model.draw_codes(3, Draw(torch.Generator().manual_seed(0), dtype=torch.float64))
    assert z.shape == (3, model.latent)


def test_each_group_is_a_layers_channel():
    model, x = resnet(), torch.randint(17, (3, 1, 8, 8)).double()
    recon, ratio = model.weigh(x, 2, RowNoise(x))
    assert recon.shape == (2, 3) and ratio.shape == (2, 3, 4 * 2)


def started(images: torch.Tensor, **options) -> tuple[IAFVAE, dict[str, list[torch.Tensor]]]:
    """A ResNet started from images, and what each convolution and flow was given and gave."""
    model = resnet(start=False, **options)
    seen: dict[str, list[torch.Tensor]] = {}
    for name, part in model.named_modules():
        if isinstance(part, WNConv | Flow):
            part.register_forward_hook(
                lambda m, given, out, name=name: seen.update({name: [given[0], out]})
            )
    with torch.no_grad():
        model.initialise_from(Batch({"x": images}))
    return model, seen


@pytest.mark.parametrize("kind", ["affine", "sigmoid"])
def test_maps_start_at_a_tenth_and_those_of_the_masked_layers_at_one(kind):
    model, seen = started(torch.randint(17, (128, 1, 8, 8)).double(), iaf=kind, hidden=6)
    convs = {n: m for n, m in model.named_modules() if isinstance(m, WNConv)}
    masked = {n for n, m in convs.items() if isinstance(m, MaskedWNConv)}
    assert len(masked) == 3 * 4 and {*seen} > {*convs}  # two hidden layers and one out, each layer
    for name, conv in convs.items():
        out = seen[name][1]
        assert out.mean((0, 2, 3)).abs().max() < 1e-8
        if name == "decoder.layers.0.conv":  # of a constant map: all is constant
            assert out.abs().max() == 0 and conv.g.eq(0.1).all()
            continue
        want = torch.full_like(conv.g, 1.0 if name in masked else 0.1)
        torch.testing.assert_close(out.std((0, 2, 3)), want, atol=1e-6, rtol=0)
        assert conv.g.abs().max() < 100


def test_the_way_down_starts_from_draws_from_the_prior():
    dark, light = torch.zeros(128, 1, 8, 8).double(), torch.randint(17, (128, 1, 8, 8)).double()
    dark[::2] += 1  # not quite constant
    codes = [started(x)[1]["flows.0"][0] for x in (dark, light)]
    assert torch.equal(*codes)
    # the top map is constant, so that the first prior is N(0, 1)
    assert abs(codes[0].mean()) < 0.1 and abs(codes[0].std() - 1) < 0.1
    assert codes[0].flatten().unique().numel() == codes[0].numel()


@pytest.mark.parametrize("kind", ["affine", "sigmoid"])
@pytest.mark.parametrize("blocks", [1, 2, 3, 6, 20])
def test_the_resnet_starts_near_its_own_logistic_however_deep(kind, blocks):
    """A logistic of scale 1 about 0 costs at most log2(L) + 1 bits of each value in [-1, 1] and a
    little for the mean's deviation; what is above is KL, which grows with the layers.
    """
    torch.manual_seed(0)
    spec, x = DataSpec((1, 8, 8), 256), torch.randint(256, (64, 1, 8, 8)).float()
    small = {"latent": 2, "width": 8, "hidden": 8, "levels": 1, "steps": 1}
    model = IAFVAE(spec, net="resnet", iaf=kind, blocks=blocks, **small)
    with torch.no_grad():
        model.initialise_from(Batch({"x": x}))
        recon, ratio = model.weigh(x, 1, RowNoise(x))
    recon, kl = (t / spec.dim / math.log(2) for t in (-recon.mean(), ratio.sum(-1).mean()))
    assert 8 < recon < 9.1 and 0 < kl < 0.1 + 0.35 * blocks


def test_a_masked_filter_has_the_norm_of_what_its_mask_leaves():
    conv = MaskedWNConv("A", 4, 8, 4)
    conv.g.data.uniform_(1, 2)
    torch.testing.assert_close(conv.weight().flatten(1).norm(dim=1), conv.g)
    assert (conv.weight() * (1 - conv.mask)).abs().max() == 0 and conv.mask[:, :, 2].sum() == 0


@pytest.mark.parametrize(
    "spec", [DataSpec((3, 8, 8), 256), DataSpec((1, 8, 8), 2), PICTURES], ids=str
)
def test_resnet_learns_on_every_kind_of_image(spec):
    model = IAFVAE(
        spec,
        net="resnet",
        latent=2,
        width=8,
        hidden=8,
        blocks=1,
        lr=3e-3,
        optimiser="adamax",
        free_bits=0.05,
    )
    x = torch.randint(2, (8, 1, 1, 1)).expand(8, *spec.shape).float() * ((spec.levels or 2) - 1)
    seen = []
    inner = model.loss
    model.loss = lambda batch: seen.append(inner(batch)) or seen[-1]
    fit(model, Given(spec, x.contiguous()), 60)
    first, last = (torch.stack([t["nelbo"] for t in part]).mean() for part in (seen[:5], seen[-5:]))
    assert last < 0.8 * first and model.sample(2).shape == (2, *spec.shape)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"net": "conv"}, "net is one of mlp, resnet, got 'conv'"),
        ({"iaf": "exp"}, "iaf is one of sigmoid, affine, got 'exp'"),
        ({"steps": -1}, "steps is not negative, got -1"),
        ({"net": "resnet"}, "sides that 2 divides"),
        ({"optimiser": "sgd"}, "optimiser is one of adam, adamax, got 'sgd'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=f"iaf_vae: .*{message}"):
        IAFVAE(SPEC, **options)


def test_rows_do_not_talk():
    likelihoods.assert_rows_do_not_talk(iaf().importance_bound, IMAGES[:9])
    likelihoods.assert_rows_do_not_talk(resnet().elbo, torch.randint(17, (5, 1, 8, 8)).double())


@pytest.mark.slow
def test_the_small_resnet_passes_what_knows_next_to_nothing():
    """Three seeds: elbo -21.8, -22.4, -22.4 nats. Of the same digits uniform pixels have -44.4,
    one gaussian of the dequantised pixels -34.6, independent pixels -25.4.
    """
    subject = check.Subject.of("iaf_vae", "--preset", "resnet")
    data, model = subject.data(), subject.model()
    subject.fit(model, 800, data)
    rows, held_out = (data.examples(split=s)["x"].flatten(1) for s in ("train", "val"))
    share = (rows.sum(0) + 0.5) / (len(rows) + 1)
    independent = torch.distributions.Bernoulli(share).log_prob(held_out).sum(1).mean()
    with torch.no_grad():
        x = data.examples(split="val")["x"]
        elbo = model.elbo(x, generator=torch.Generator().manual_seed(0)).mean()
    assert elbo > -23.5 > independent + 1.5


def test_samples_of_the_resnet_are_of_each_layers_own_prior():
    model = resnet(steps=0)
    for layer in model.decoder.layers:
        z = layer.sizes[0]
        layer.conv.g.data[: 2 * z] = 0
        layer.conv.b.data[:z], layer.conv.b.data[z : 2 * z] = 3, -2
    codes = model.draw_codes(200, Draw(torch.Generator().manual_seed(0), dtype=torch.float64))
    spread = math.exp(5 * math.tanh(-0.4))  # ln σ = -2, bounded softly
    assert abs(codes.mean() - 3) < 0.01 and abs(codes.std() / spread - 1) < 0.03


def test_the_posterior_is_of_both_passes():
    model, x = resnet(steps=0), torch.randint(17, (3, 1, 8, 8)).double()
    before = model.encode(x)
    layer = model.decoder.layers[-1]  # the last to be drawn
    z = layer.sizes[0]
    layer.conv.b.data[2 * z : 3 * z] += 2  # μ_r
    own = before.shape[1] - z * 16
    after = model.encode(x)
    assert torch.equal(after[:, :own], before[:, :own])
    torch.testing.assert_close(after[:, own:], before[:, own:] + 2)


def test_the_context_is_turned_with_the_code():
    class Seen(torch.nn.Module):
        def forward(self, z, h):
            self.h = h
            return torch.zeros_like(z), torch.zeros_like(z)

    steps, h = [Seen(), Seen()], torch.arange(12.0).view(1, 2, 2, 3)
    Flow(steps, "affine", (1, 2, 3), (2, 3))(torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 3), h)
    assert torch.equal(steps[0].h, h) and steps[1].h[0, :, 0, 0].tolist() == [5, 11]


def test_steps_start_near_the_identity_and_residuals_are_small():
    out = iaf().flows[0].steps[0].out
    assert (torch.sigmoid(out.bias[2:] / 1.7) > 0.8).all()
    torch.manual_seed(0)
    layer = resnet(levels=1).decoder.layers[1]
    x, z = torch.randn(64, 8, 2, 2).double(), torch.randn(64, 2, 2, 2).double()
    moved = layer.merge(x, z, torch.zeros_like(x)) - x
    assert moved.std() < 0.05 * x.std()


def test_the_optimiser_is_the_one_that_is_asked_for():
    for name, kind in (("adam", torch.optim.Adam), ("adamax", torch.optim.Adamax)):
        optimiser = IAFVAE(SPEC, optimiser=name, lr=0.03).configure_optimizers()
        assert type(optimiser) is kind and optimiser.param_groups[0]["lr"] == 0.03


class Says(torch.nn.Module):
    """A step that says m and s whatever it is given."""

    def __init__(self, m: float, s: float) -> None:
        super().__init__()
        self.m, self.s = m, s

    def forward(self, z, h):
        return torch.full_like(z, self.m), torch.full_like(z, self.s)


@pytest.mark.parametrize("build", [iaf, resnet], ids=["vectors", "maps"])
def test_every_flow_has_the_steps_and_the_kind_that_are_asked_for(build):
    z = torch.zeros(1, 2, 2, 2).double()
    sigma = 1 / (1 + math.e)
    for kind, want, fall in (
        ("affine", -0.2 * math.exp(0.1), 0.1),
        ("sigmoid", 2 * (1 - sigma), math.log(sigma)),
    ):
        model = build(iaf=kind, steps=3)
        for flow in model.flows:
            assert len(flow.steps) == 3
            flow.steps = flow.steps[:1]
            flow.steps[0] = Says(2.0, -1.0)
            moved, log_q = flow(z, z, z)
            torch.testing.assert_close(moved, torch.full_like(z, want))
            torch.testing.assert_close(log_q, torch.full_like(z, -fall))


def test_steps_of_either_kind_start_near_the_identity():
    for kind, s in (("sigmoid", 1.5), ("affine", 0.0)):
        flat = iaf(iaf=kind).flows[0].steps[0]
        assert flat.out.bias[2:].tolist() == pytest.approx([1.7 * s] * 2)  # iaf() stretches all
        maps = resnet(iaf=kind).flows[0].steps[0]
        z, h = torch.zeros(1, 2, 2, 2).double(), torch.zeros(1, 8, 2, 2).double()
        for layer in (maps.first, maps.second, maps.out):
            layer.b.data.zero_()
        assert maps(z, h)[1].unique().tolist() == [s]


def test_a_code_is_that_of_no_noise():
    model = iaf(steps=0)
    want = model.encoder(model.spec.to_signed(IMAGES))[:, :2]
    torch.testing.assert_close(model.encode(IMAGES), want)


def test_posterior_and_prior_that_say_the_same_cost_nothing():
    model, x = resnet(steps=0), torch.randint(17, (3, 1, 8, 8)).double()
    for layer in model.encoder.layers:
        layer.conv.g.data[: 2 * layer.sizes[0]] = 0
        layer.conv.b.data[: 2 * layer.sizes[0]] = 0
    for layer in model.decoder.layers:
        own = layer.conv.b.data[: 4 * layer.sizes[0]].view(4, -1)
        layer.conv.g.data[: own.numel()] = 0
        own[[0, 2]], own[[1, 3]] = 3.0, -0.5
    assert model.weigh(x, 5, RowNoise(x))[1].abs().max() < 1e-10


def test_the_context_of_a_flow_is_of_both_passes():
    for way in ("encoder", "decoder"):
        model, x, seen = resnet(), torch.randint(17, (3, 1, 8, 8)).double(), []
        model.flows[0].register_forward_pre_hook(lambda m, given, s=seen: s.append(given[2]))
        model.draw(x, 1, None)
        layer = getattr(model, way).layers[-1 if way == "encoder" else 0]  # the top
        start = sum(layer.sizes[: len(layer.sizes) - 2])
        layer.conv.b.data[start : start + 8] += 2
        model.draw(x, 1, None)
        torch.testing.assert_close(seen[1], seen[0] + 2)


def test_the_resnet_reads_and_makes_images_in_its_own_units():
    model, seen = resnet(), []
    model.encoder.first.register_forward_pre_hook(lambda m, given: seen.append(given[0]))
    x = torch.zeros(2, 1, 8, 8).double()
    x[0] += 16
    model.encode(x)
    assert seen[0][0].unique().tolist() == [0.5] and seen[0][1].unique().tolist() == [-0.5]
    last = model.decoder.last
    last.g.data.zero_()
    for b, mean in ((0.2, 0.4), (5.0, 1 - 1 / 17), (-5.0, 1 / 17 - 1)):  # half a level of 17
        last.b.data.fill_(b)
        out = model.decoder(torch.zeros(1, model.latent).double())
        assert out[:, 0].unique().tolist() == pytest.approx([mean])
