"""CoGAN is CoGAN: the layers of meaning are one, one code makes both images, and no pair is ever
seen.
"""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.support import fit
from zoo.bases import LoopOptions
from zoo.core import Batch, Image, Label, Spec
from zoo.core.noise import Noise
from zoo.data.unpaired import Unpaired
from zoo.gan.cogan import CoGAN

SPEC = Spec("two", a=Image((1, 16, 16), 17), b=Image((3, 16, 16), 256), y=Label(4))
TOPS = (("a", 16), ("b", 255))


def make(**options) -> CoGAN:
    torch.manual_seed(0)
    model = CoGAN(SPEC, **{"latent": 4, "width": 4, **options}).double()
    model.noise = Noise(1, "test", dtype=torch.float64)
    return model


def batch(n: int = 6) -> Batch:
    rows = SPEC.example(n)
    return Batch({**rows.to("cpu", torch.float64), "index": torch.arange(n)})


def restart(model):
    model.noise = Noise(1, "test", dtype=torch.float64)


def same(model, player):
    """Numbers of weights of a and b, and of those that are both's."""
    a, b = ({id(p): p.numel() for p in net.parameters()} for net in getattr(model, player).values())
    return sum(a.values()), sum(b.values()), sum(a[k] for k in a.keys() & b.keys())


def test_first_layers_of_g_and_last_of_d_are_the_same_parameters():
    model = make()
    for first, second in zip(model.g["a"][:-1], model.g["b"][:-1], strict=True):
        assert first is second
    assert model.g["a"][-1] is not model.g["b"][-1]
    d_a, d_b = model.d["a"].net, model.d["b"].net
    assert d_a.end is d_b.end and d_a.hidden[0] is not d_b.hidden[0]
    assert all(x is y for x, y in zip(d_a.hidden[1:], d_b.hidden[1:], strict=True))
    for player in ("g", "d"):
        own = [*model.parameters_of(player)]
        assert len(own) == len({id(p) for p in own})  # each is stepped once


@pytest.mark.parametrize(("g", "d"), [(0, 0), (1, 1), (2, 3)])
def test_so_many_layers_are_shared(g, d):
    model = make(share_g=g, share_d=d)
    of_g = [x is y for x, y in zip(model.g["a"], model.g["b"], strict=True)]
    nets = [[*part.net.hidden, part.net.end] for part in model.d.values()]
    of_d = [x is y for x, y in zip(*nets, strict=True)]
    assert of_g == [True] * g + [False] * (3 - g)
    assert of_d == [False] * (4 - d) + [True] * d
    if g == d == 0:
        assert same(model, "g")[2] == same(model, "d")[2] == 0


def test_losses_are_the_sum_over_both_domains_of_the_plain_game():
    model, rows = make(), batch()
    z = model.draw_codes(6, model.noise)
    restart(model)
    terms = model.discriminator_loss(rows)
    wanted = {}
    for name in "ab":
        x = rows[name] * 2 / (SPEC[name].levels - 1) - 1
        real = model.d[name](x).sigmoid()
        fake = model.d[name](model.made(z)[name]).sigmoid()
        wanted[name] = -real.log().mean() - (1 - fake).log().mean()
        torch.testing.assert_close(terms[f"loss_{name}"], wanted[name])
    torch.testing.assert_close(terms["loss"], wanted["a"] + wanted["b"])
    for kind, price in (("nonsat", lambda p: -p.log()), ("minimax", lambda p: (1 - p).log())):
        other = make(g_loss=kind)
        z = other.draw_codes(6, other.noise)
        restart(other)
        paid = sum(price(other.d[n](other.made(z)[n]).sigmoid()).mean() for n in "ab")
        torch.testing.assert_close(other.generator_loss(Batch({}, 6))["loss"], paid)


def test_one_code_makes_both_images():
    model, seen = make(), {}
    for name, g in model.g.items():
        g.register_forward_pre_hook(lambda _, z, name=name: seen.setdefault(name, []).append(z[0]))
    model.discriminator_loss(batch())
    model.generator_loss(Batch({}, 6))
    model.sample(6, generator=torch.Generator().manual_seed(0))
    assert len(seen["a"]) == len(seen["b"]) == 3
    assert all(torch.equal(x, y) for x, y in zip(seen["a"], seen["b"], strict=True))
    codes = torch.cat(seen["a"])
    assert len(codes.unique(dim=0)) == 18


def grads(model, losses, parameters):
    found = torch.autograd.grad(losses, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


def test_shared_layers_get_both_gradients_and_own_layers_one():
    model = make()
    made = model.made(model.draw_codes(6, model.noise))
    costs = [F.softplus(-model.d[n](made[n])).mean() for n in "ab"]
    restart(model)
    total = model.generator_loss(Batch({}, 6))["loss"]
    shared, own_b = [*model.g["a"][:-1].parameters()], [*model.g["b"][-1].parameters()]
    parts = [grads(model, cost, shared + own_b) for cost in costs]
    for whole, a, b in zip(grads(model, total, shared + own_b), *parts, strict=True):
        torch.testing.assert_close(whole, a + b)
    assert all(g.abs().max() > 0 for part in parts for g in part[: len(shared)])
    assert all(g.abs().max() == 0 for g in parts[0][len(shared) :])
    assert all(g.abs().max() > 0 for g in parts[1][len(shared) :])


def test_without_sharing_each_domain_is_a_gan_that_the_other_does_not_move():
    model, rows = make(share_g=0, share_d=0), batch()
    other = Batch({**rows, "b": rows["b"].flip(0, 2)}, 6)
    own = [*model.d["a"].parameters()]
    found = []
    for b in (rows, other):
        restart(model)
        found.append(grads(model, model.discriminator_loss(b)["loss"], own))
    assert all(torch.equal(x, y) for x, y in zip(*found, strict=True))


def test_who_meets_whom_in_a_minibatch_does_not_matter():
    model, rows = make(), batch()
    restart(model)
    loss = model.discriminator_loss(rows)["loss"]
    restart(model)
    mixed = Batch({**rows, "b": rows["b"][torch.randperm(6)]}, 6)
    torch.testing.assert_close(model.discriminator_loss(mixed)["loss"], loss)


def test_d_step_leaves_g_alone():
    model = make()
    found = torch.autograd.grad(
        model.discriminator_loss(batch())["loss"], [*model.g.parameters()], allow_unused=True
    )
    assert all(g is None for g in found)


def test_classifier_learns_from_source_labels_only_and_reaches_the_common_layers():
    model, rows = make(lam_c=2.0), batch()
    plain = make()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "c." not in k[:2]})
    terms, bare = model.discriminator_loss(rows), plain.discriminator_loss(rows)
    p = model.classify(rows["a"], "a")
    wanted = -p[torch.arange(6), rows["y"]].log().mean()
    torch.testing.assert_close(terms["ce"], wanted)
    torch.testing.assert_close(terms["loss"], bare["loss"] + 2 * wanted)
    of_b = grads(model, terms["ce"], [*model.d["b"].net.hidden[0].parameters()])
    shared = grads(model, terms["ce"], [*model.d["b"].net.hidden[1].parameters()])
    assert all(g.abs().max() == 0 for g in of_b) and all(g.abs().max() > 0 for g in shared)
    assert [p.reads for p in model.phases()] == [("a", "b", "y"), ()]
    assert {id(p) for p in model.c.parameters()} <= {id(p) for p in model.parameters_of("d")}


def test_accuracies_are_those_of_each_domain():
    model, rows = make(lam_c=1.0), batch(40)
    with torch.no_grad():
        model.c.weight.mul_(1000)  # it says different classes
    said = {n: model.c(model.d[n].net.features(2 * rows[n] / top - 1)).argmax(1) for n, top in TOPS}
    rows = Batch({**rows, "y": said["a"], "oracle_b": rows["b"]}, 40)
    found = model.evaluate(rows)
    assert found["acc_source"].all()
    assert found["acc"].tolist() == (said["b"] == said["a"]).double().tolist()
    assert not found["acc"].all()
    torch.testing.assert_close(model.classify(rows["b"]), model.classify(rows["b"], "b"))
    assert "acc" not in model.evaluate(batch()) and make().evaluate(rows) == {}
    with pytest.raises(ValueError, match="cogan has no classifier without lam_c"):
        make().classify(rows["b"])


def test_samples_are_levels_of_each_domain_from_codes_of_the_prior():
    model = make(prior="uniform")
    made = model.sample(200, generator=torch.Generator().manual_seed(0))
    assert all(SPEC[k].faults(v) == "" for k, v in made.items())
    z = model.draw_codes(500, model.noise)
    assert z.min() >= -1 and z.max() < 1 and z.shape == (500, 4)
    two = model.from_codes(z[:2])
    torch.testing.assert_close(two["a"], ((model.made(z[:2])["a"] + 1) * 8).round())
    torch.testing.assert_close(two["b"], ((model.made(z[:2])["b"] + 1) * 127.5).round())


def test_options_of_the_adversary_are_of_both_domains():
    model = make(loop=LoopOptions(spectral_norm=True))
    for part in model.d.values():
        for layer in part.net.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                for _ in range(60):
                    norm = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
                assert norm.item() == pytest.approx(1, abs=1e-3)
                assert len(layer.parametrizations.weight) == 1
    noisy, rows = make(loop=LoopOptions(instance_noise=0.5)), batch()
    plain = make().discriminator_loss(rows)
    assert all(noisy.discriminator_loss(rows)[f"loss_{n}"] != plain[f"loss_{n}"] for n in "ab")
    assert {*make(loop=LoopOptions(r1=1.0)).discriminator_loss(rows)} >= {"r1_a", "r1_b"}


def test_rates_decay_and_betas_are_each_players():
    model = make(lr_d=0.1, lr_g=0.2, beta1=0.3, weight_decay=0.4)
    for player, rate in (("d", 0.1), ("g", 0.2)):
        group = model.optimisers()[player].param_groups[0]
        assert (group["lr"], group["betas"], group["weight_decay"]) == (rate, (0.3, 0.999), 0.4)


def test_paper_networks_are_the_authors():
    spec = Spec("mnist", a=Image((1, 28, 28), 256), b=Image((1, 28, 28), 256))
    model = CoGAN(spec, arch="paper", latent=10, width=4)
    made = model.made(torch.randn(3, 10))
    assert {v.shape for v in made.values()} == {(3, 1, 28, 28)}
    assert all(v.min() > 0 and v.max() < 1 for v in made.values())
    norms = [m for m in model.g["a"].modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 4 and not any(m.affine for m in norms)
    convs = [m for m in model.d["a"].net.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size[0]) for c in convs] == [(20, 5), (50, 5), (500, 4)]
    bound = math.sqrt(6 / (25 * (20 + 50)))
    weight = convs[1].weight.abs().max().item()
    assert 0.95 * bound < weight <= bound
    x = torch.full((2, 1, 28, 28), 255.0)
    assert model.scaled("a", x).max() == 1 and model.quantised("b", x / 255).max() == 255
    assert model.scaled("a", 0 * x).min() == 0 and model.quantised("b", 0 * x).max() == 0


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match="at most 2 layers of G and 3 of D"):
        make(share_g=3)
    with pytest.raises(ValueError, match="at most 2 layers of G and 3 of D"):
        make(share_d=4)
    small = Spec("odd", a=Image((1, 16, 16), 17), b=Image((1, 8, 8), 17))
    with pytest.raises(ValueError, match="of one size"):
        CoGAN(small)
    with pytest.raises(ValueError, match="of 28x28"):
        make(arch="paper")
    with pytest.raises(ValueError, match="lam_c is of labels"):
        CoGAN(Spec("bare", a=SPEC["a"], b=SPEC["b"]), lam_c=1.0)


def test_it_trains_on_unpaired_digits_with_a_classifier():
    data = Unpaired(batch_size=16)
    model = CoGAN(data.spec, width=4, lam_c=1.0)
    fit(model, data, 4)
    assert {"loss_a", "loss_b", "loss_d", "loss_g", "ce"} <= model.terms.keys()
    assert all(v.isfinite() for v in model.terms.values())
