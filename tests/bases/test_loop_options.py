"""The options of the loop mean in the models of several networks what they mean in a plain GAN."""

import pytest
import torch
from torch import nn

from tests.support import Given, fit
from zoo import registry
from zoo.bases import Adversary
from zoo.bases.adversary import NORMS
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise

SPEC = DataSpec((1, 16, 16), 17, 10)
SMALL = {
    "began": {"width": 24, "code": 12},
    "vaegan": {"enc": (4, 6), "dec": (6, 4), "dis": (4, 6, 6), "enc_hidden": 16, "dis_hidden": 16},
    "cvae_gan": {"width": 4, "latent": 6},
    "aae": {"width": 24},
    "aae label_reg": {"width": 24, "mode": "label_reg", "prior": "mixture", "latent": 2},
    "aae semi": {"width": 24, "mode": "semi"},
    "factor_vae": {"width": 24, "width_d": 16},
}
EACH = pytest.mark.parametrize("case", list(SMALL))


def create(case: str, **loop):
    """A small model, the same weights for the same case."""
    torch.manual_seed(0)
    model = registry.get(case.split()[0])(SPEC, **SMALL[case], loop=loop)
    model.noise = Noise(0, "test")
    return model


def adversaries(model) -> dict[str, Adversary]:
    return {n: m for n, m in model.named_modules() if isinstance(m, Adversary)}


def rows(n: int = 12) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {"x": torch.randint(17, (n, 1, 16, 16), generator=g).float(), "y": torch.arange(n) % 10}


def data(n: int = 96, batch_size: int = 8) -> Given:
    return Given(SPEC, *rows(n).values(), batch_size=batch_size)


def phase_of(model, player: str):
    return next(p for p in model.phases() if p.player == player)


def loss_of(model, player: str) -> dict[str, torch.Tensor]:
    """A phase's terms, at the same rows and noise for every model."""
    phase = phase_of(model, player)
    batch = Batch({**rows(), "index": torch.arange(12)})
    model.noise = Noise(0, "test")
    return phase.loss(batch.only(phase.reads))


@EACH
def test_spectral_norm_divides_all_of_ds_weights_and_no_others(case):
    model, plain = create(case, spectral_norm=True), create(case)
    normed = {n for n, m in model.named_modules() if nn.utils.parametrize.is_parametrized(m)}
    wanted = set()
    for name, d in adversaries(plain).items():
        for path, layer in d.net.named_modules(prefix=f"{name}.net"):
            weights = [n for n, p in layer.named_parameters(recurse=False) if p.ndim > 1]
            if not weights or isinstance(layer, NORMS):
                continue
            wanted.add(path)
            assert path in normed, f"{path} is not normalised"
            same = model.get_submodule(path)
            for weight in weights:
                given = same.parametrizations[weight].original.detach()
                for _ in range(300):  # power iterations, one a reading
                    divided = getattr(same, weight).detach()
                out = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
                largest = torch.linalg.svdvals(given.transpose(0, out).flatten(1))[0]
                torch.testing.assert_close(divided, given / largest, rtol=2e-2, atol=2e-3)
                layer.get_parameter(weight).data.copy_(divided)
    assert len(wanted) >= 2 and normed == wanted, "networks that are not D's"
    for path, p in model.named_parameters():
        if "parametrizations" not in path:
            plain.get_parameter(path).data.copy_(p)
    for player in ("d", "g"):  # the divided weights are those that are trained
        found, expected = (loss_of(each, player)["loss"] for each in (model, plain))
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-3)


@EACH
def test_r1_is_in_ds_loss_for_each_adversary_as_autograd_has_it(case):
    model, plain = create(case, r1=4.0), create(case)
    real, seen = {}, {name: [] for name in adversaries(model)}
    for name, d in adversaries(model).items():
        inner, through = d.regularised, d.forward
        d.forward = lambda *v, inner=through, seen=seen[name]: seen.append(v) or inner(*v)

        def spy(terms, *given, name=name, inner=inner):
            real[name] = given
            return inner(terms, *given)

        d.regularised = spy
    terms = loss_of(model, "d")
    assert set(real) == set(adversaries(model))
    expected = torch.zeros(())
    for name, d in adversaries(model).items():
        first, *others = real[name]
        for given, shown in zip(real[name], seen[name][0], strict=True):  # real rows come first
            assert torch.equal(given, shown[: len(given)])
        for i in range(len(first)):  # one row after another
            v = first[i : i + 1].detach().clone().requires_grad_()
            s = d(v, *(o[i : i + 1] for o in others))
            assert s.shape == (1,)
            (slope,) = torch.autograd.grad(s.sum(), v)
            expected = expected + 4.0 / 2 * slope.square().sum() / len(first)
    assert expected > 0
    torch.testing.assert_close(terms["r1"].detach(), expected, rtol=1e-4, atol=1e-7)
    without = loss_of(plain, "d")
    assert "r1" not in without
    torch.testing.assert_close(
        (terms["loss"] - without["loss"]).detach(), expected, rtol=1e-3, atol=1e-6
    )
    for other in {p.player for p in model.phases()} - {"d"}:
        assert "r1" not in loss_of(model, other)
    terms["r1"].backward()
    for name, d in adversaries(model).items():
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in d.parameters()), name


@EACH
def test_what_r1_adds_to_the_real_rows_of_d_is_logged_with_its_loss(case):
    model, plain = create(case, r1=50.0), create(case)
    for each in (model, plain):
        fit(each, data(), 1)
    added = model.terms["loss_d"] - plain.terms["loss_d"]
    assert model.terms["r1"] > 0 and "r1" not in plain.terms
    assert added.item() == pytest.approx(model.terms["r1"].item(), rel=1e-3, abs=1e-5)


@EACH
def test_instance_noise_is_on_what_each_adversary_sees(case):
    sigma, seen = 0.3, {}
    for name, model in (
        ("quiet", create(case)),
        ("noisy", create(case, instance_noise=sigma, instance_noise_steps=20)),
    ):
        seen[name] = []
        inner = model.d.forward

        def spy(*given, inner=inner, seen=seen[name]):
            seen.append([v.detach() for v in given])
            return inner(*given)

        model.d.forward = spy
        loss_of(model, "d")
    assert len(seen["quiet"]) == len(seen["noisy"]) > 0
    for before, after in zip(seen["quiet"], seen["noisy"], strict=True):
        noise = after[0] - before[0]
        error = 4 * sigma / (2 * noise.numel()) ** 0.5
        assert noise.std().item() == pytest.approx(sigma, abs=error)
        assert all(torch.equal(a, b) for a, b in zip(after[1:], before[1:], strict=True))


@EACH
def test_instance_noise_is_on_what_a_maker_shows_d_and_gone_in_the_end(case):
    quiet, noisy = create(case), create(case, instance_noise=0.3, instance_noise_steps=20)
    assert not torch.equal(loss_of(noisy, "g")["loss"], loss_of(quiet, "g")["loss"])
    noisy.trainer = type("Clock", (), {"global_step": 20, "world_size": 1})()
    # What is drawn after D saw something is another draw: what the second adversary of semi sees,
    # and the codes of cvae_gan's features.
    for player in {"d", "g"} - {"aae semi": {"d"}, "cvae_gan": {"g"}}.get(case, set()):
        assert torch.equal(loss_of(noisy, player)["loss"], loss_of(quiet, player)["loss"])


@EACH
def test_replay_mixes_whole_rows_of_the_past_into_ds_step(case):
    model = create(case, replay=40)
    stores = adversaries(model)
    diary = {name: [] for name in stores}
    for name, d in stores.items():
        inner = d.stored

        def spy(*made, inner=inner, diary=diary[name]):
            shown = inner(*made)
            diary.append([torch.cat([v.flatten(1) for v in part], 1) for part in (made, shown)])
            return shown

        d.stored = spy
    fit(model, data(), 4)
    for name, d in stores.items():
        past, replaced = set(), 0
        for made, shown in ((a.detach(), b.detach()) for a, b in diary[name]):
            half = len(made) // 2
            assert torch.equal(shown[half:], made[half:])
            old = [tuple(row.tolist()) for row in shown[:half]]
            if past:
                assert set(old) <= past, "whole rows, and none but those of the past"
                replaced += half
            past |= {tuple(row.tolist()) for row in made}
        assert replaced >= 3 * (4 if case != "factor_vae" else 2)
        assert int(d.pool.seen) == sum(len(made) for made, _ in diary[name])
        assert f"{name}.pool.past0" in model.state_dict()


@EACH
def test_all_that_a_game_serves_trains_together_in_micro_batches_too(case):
    served = {"spectral_norm": True, "r1": 1.0, "instance_noise": 0.1, "clip_d": 1.0, "clip_g": 1.0}
    if case != "began":
        served |= {"label_smooth": 0.9, "label_flip": 0.1}
    for more in ({"replay": 32}, {"accumulate": 2}):
        model = create(case, **served, **more)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        fit(model, data(), 3)
        assert {"r1", "grad_norm_d", "grad_norm_g", "loss_d", "loss_g"} <= set(model.terms)
        assert all(v.isfinite().all() for v in model.terms.values())
        assert all(p.isfinite().all() for p in model.parameters())
        moved = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
        assert all(any(n.startswith(f"{name}.net.") for n in moved) for name in adversaries(model))


@pytest.mark.parametrize("case", ["began", "vaegan", "aae", "aae label_reg"])
def test_micro_batches_with_the_options_of_adversaries_are_one_step(case):
    results = []
    options = {"r1": 1.0, "instance_noise": 0.1, "label_flip": 0.2, "label_smooth": 0.9}
    if case == "began":
        options = {"r1": 1.0, "instance_noise": 0.1}
    for accumulate in (1, 2):
        model = create(case, **options, accumulate=accumulate).double()
        fit(model, data(), 3, precision="64-true")
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("case", "option", "said"),
    [
        ("began", {"label_smooth": 0.9}, "its loss has no targets"),
        ("began", {"label_flip": 0.1}, "its loss has no targets"),
        ("began", {"separate_batches": False}, "no batch statistics"),
        ("aae", {"separate_batches": False}, "no batch statistics"),
        ("factor_vae", {"separate_batches": False}, "no batch statistics"),
    ],
)
def test_what_a_game_does_not_serve_is_refused_with_its_reason(case, option, said):
    (name,) = option
    with pytest.raises(ValueError, match=f"loop.{name} has no meaning in {case}'s game: .*{said}"):
        create(case, **option)
