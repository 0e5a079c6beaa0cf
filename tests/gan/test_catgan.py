"""CatGAN is CatGAN: conditional and marginal entropies, who wants which, and clusters named without
the held-out labels.
"""

import math

import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score
from torch.nn import functional as F

from tests.support import Given, fit
from zoo.bases import LoopOptions
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.data.digits import Digits
from zoo.gan.catgan import CatGAN, conditional_entropy, marginal_entropy

SPEC = DataSpec((1, 8, 8), 17, 3)


def batch(n: int = 12) -> Batch:
    x = torch.randint(0, 17, (n, 1, 8, 8), generator=torch.Generator().manual_seed(1)).double()
    return Batch({"x": x, "y": torch.arange(n) % 3, "index": torch.arange(n)})


def make(spec: DataSpec = SPEC, **options) -> CatGAN:
    torch.manual_seed(0)
    model = CatGAN(
        spec,
        **{
            "latent": 4,
            "classes": 5,
            "hidden_d": (16,),
            "hidden_g": (16,),
            "noise": 0.0,
            **options,
        },
    ).double()
    model.noise = Noise(3, "test", dtype=torch.float64)
    return model


def entropies(model: CatGAN, p: torch.Tensor) -> tuple[float, float]:
    hm, hc = model.entropies(p.double().clamp(min=1e-300).log())
    return hm.item(), hc.item()


def test_entropies_of_unsure_sure_and_constant_categories():
    model, log_k = make(), math.log(5)
    assert entropies(model, torch.full((10, 5), 0.2)) == pytest.approx((log_k, log_k))
    assert entropies(model, torch.eye(5).repeat(2, 1)) == pytest.approx((log_k, 0), abs=1e-12)
    assert entropies(model, torch.eye(5)[[2]].expand(10, 5)) == pytest.approx((0, 0), abs=1e-12)


def test_marginal_entropy_is_of_the_mean_and_not_a_mean_of_entropies():
    p = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert marginal_entropy(p.mean(0)).item() == pytest.approx(math.log(2))
    torch.testing.assert_close(
        conditional_entropy(p.clamp(min=1e-300).log()), torch.zeros(2, dtype=torch.float64)
    )


def test_a_category_that_underflows_costs_no_gradient():
    logits = torch.tensor([[0.0, -200.0], [0.0, -200.0]], requires_grad=True)
    for of in (
        lambda p: marginal_entropy(p.mean(0)),
        lambda p: make(classes=2).entropies(logits)[0],
    ):
        (gradient,) = torch.autograd.grad(of(logits.softmax(1)), logits)
        assert gradient.abs().max() < 1e-30
    p = torch.rand(7).softmax(0)
    assert torch.equal(marginal_entropy(p), torch.special.entr(p).sum())


def biased_logits(n: int, seed: int) -> torch.Tensor:
    """Logits that are neither sure nor balanced, free to move."""
    out = torch.randn(n, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (out + torch.tensor([1.5, 0, 0, 0, -1.5])).requires_grad_()


def test_a_step_of_d_makes_data_surer_and_more_balanced_and_samples_unsure():
    model, real, fake = make(), biased_logits(30, 0), biased_logits(30, 1)
    model.d.both = lambda rows, made: (real, fake)
    (hm, hc), (_, hc_fake) = model.entropies(real), model.entropies(fake)
    loss = model.discriminator_loss(batch(30))["loss"]
    torch.testing.assert_close(loss, -hm + hc - hc_fake)
    on_real, on_fake = torch.autograd.grad(loss, (real, fake))
    (hm_after, hc_after), (_, hc_fake_after) = (
        model.entropies(real - on_real),
        model.entropies(fake - on_fake),
    )
    assert hm_after > hm and hc_after < hc and hc_fake_after > hc_fake


def test_a_step_of_g_makes_d_sure_of_samples_and_uses_all_categories():
    model, fake = make(), biased_logits(30, 2)
    model.g.forward, model.d.net.forward = (lambda z: fake), (lambda v, source: v)
    hm, hc = model.entropies(fake)
    loss = model.generator_loss(Batch({}, 30))["loss"]
    torch.testing.assert_close(loss, hc - hm)
    hm_after, hc_after = model.entropies(fake - torch.autograd.grad(loss, fake)[0])
    assert hc_after < hc and hm_after > hm


def test_generators_phase_reads_no_data_and_moves_no_discriminator():
    model = make()
    phase = model.phases()[-1]
    assert phase.player == "g" and not phase.reads
    assert set(model.generator_loss(Batch({}, 8))) == {"loss"}
    fit(make().float(), Given(SPEC, batch()["x"].float(), batch()["y"]), 2)  # the loop's own checks
    loss = model.discriminator_loss(batch())["loss"]
    assert all(
        g is None for g in torch.autograd.grad(loss, [*model.g.parameters()], allow_unused=True)
    )


class Two:
    """Two processes in one: each hands the mean of the other's value in, as ``reduce`` does."""

    def __init__(self, model: CatGAN, halves: list[torch.Tensor]) -> None:
        with torch.no_grad():
            means = [model.d(h).softmax(1).mean(0) for h in halves]
        self.mean = sum(means) / 2

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        return self.mean.clone()


def test_two_processes_share_the_marginal_of_both_unless_told_not_to():
    x = SPEC.to_signed(batch(40)["x"])
    for cross_rank in ("gather", "local"):
        model = make(cross_rank=cross_rank)
        whole = torch.cat(
            [
                g.flatten()
                for g in torch.autograd.grad(
                    -model.entropies(model.d(x))[0], [*model.d.net.parameters()]
                )
            ]
        )
        halves = [*x.chunk(2)]
        model.reduce = Two(model, halves)
        parts = []
        for half in halves:
            grads = torch.autograd.grad(
                -model.entropies(model.d(half))[0], [*model.d.net.parameters()]
            )
            parts.append(torch.cat([g.flatten() for g in grads]))
        assert torch.allclose((parts[0] + parts[1]) / 2, whole, atol=1e-14) == (
            cross_rank == "gather"
        )


def test_held_out_labels_have_no_say_in_the_names_of_the_categories():
    model, rows = make(), batch(60)
    with torch.no_grad():
        kind = model.d(SPEC.to_signed(rows["x"])).argmax(1)
    model.votes.add(kind, (kind + 1) % 3, model.reduce)  # training says: category k has label k + 1
    votes = model.votes.counts.clone()
    for shift, accuracy in ((1, 1.0), (2, 0.0)):
        values = model.evaluate(Batch(rows | {"y": (kind + shift) % 3}))
        assert values["cluster_acc"].mean() == accuracy and torch.equal(model.votes.counts, votes)
    p, expected = model.categories(rows["x"]), torch.zeros(60, 3, dtype=torch.float64)
    for category, label in enumerate(votes.argmax(1).tolist()):
        expected[:, label] += p[:, category]
    torch.testing.assert_close(model.classify(rows["x"]), expected)


def test_a_training_step_lets_the_labelled_rows_of_each_category_vote():
    model, rows = make(labels=6), batch()
    with torch.no_grad():
        kind = model.d(SPEC.to_signed(rows["x"])).argmax(1)[:6]
    expected = torch.zeros(5, 3, dtype=torch.float64)
    for k, y in zip(kind, rows["y"], strict=False):
        expected[k, y] += 1 / 12
    terms = model.discriminator_loss(rows)
    torch.testing.assert_close(model.votes.counts, expected)
    assert "votes.counts" in model.state_dict()
    assert terms["nmi"].item() == pytest.approx(
        normalized_mutual_info_score(kind, rows["y"][:6]), abs=1e-9
    )


def test_a_few_labels_stand_for_all_rows():
    model, rows = make(mode="semi", classes=3, labels=4), batch()
    model.initialise_from(rows)
    ce = model.discriminator_loss(rows)["ce"]
    logits = model.d(SPEC.to_signed(rows["x"]))[:4]
    torch.testing.assert_close(
        ce, F.cross_entropy(logits, rows["y"][:4])
    )  # 12/4 of the sum over 4 of 12 rows
    wrong = Batch(rows | {"y": torch.where(rows["index"] < 4, rows["y"], (rows["y"] + 1) % 3)})
    model.noise.draws = 0
    assert model.discriminator_loss(wrong)["ce"] == ce


def test_unsupervised_training_never_looks_at_a_label():
    data = [
        Given(SPEC, batch(48)["x"].float(), y, batch_size=16)
        for y in (batch(48)["y"], batch(48)["y"].flip(0))
    ]
    weights = []
    for given in data:
        model = make().float()
        fit(model, given, 3)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)


def test_what_is_logged_are_the_entropies_of_data_and_of_samples_by_their_names():
    model, real, fake = make(), biased_logits(30, 0), biased_logits(30, 1)
    model.d.both = lambda rows, made: (real, fake)
    terms = model.discriminator_loss(batch(30))
    for name, logits in (("real", real), ("fake", fake)):
        p = logits.softmax(1)
        mean = p.mean(0)
        torch.testing.assert_close(terms[f"hm_{name}"], -(mean * mean.log()).sum())
        torch.testing.assert_close(terms[f"hc_{name}"], -(p * p.log()).sum(1).mean())
    values = model.eval().evaluate(batch(30))
    p = model.categories(batch(30)["x"])
    torch.testing.assert_close(values["hc_real"], -(p * p.log()).sum(1))


@pytest.mark.parametrize("lam", [0.0, 0.3])
def test_labels_weigh_as_they_are_asked_to(lam):
    model, rows = make(mode="semi", classes=3, lam=lam), batch()
    model.initialise_from(rows)
    terms = model.discriminator_loss(rows)
    game = terms["hc_real"] - terms["hm_real"] - terms["hc_fake"]
    torch.testing.assert_close(terms["loss"], game + lam * terms["ce"])
    assert terms["ce"] > 0.1


def test_every_layer_of_d_gets_noise_of_its_own_in_training_alone():
    model = make(noise=0.3, hidden_d=(16, 12))
    v, stages = SPEC.to_signed(batch()["x"]), model.d.net.stages
    found, noise, h = model.d(v), Noise(3, "test", dtype=torch.float64), v
    for stage in stages:
        h = stage(h + 0.3 * noise.normal(*h.shape))
    torch.testing.assert_close(found, h)
    assert noise.draws == 3
    model.eval()
    plain = stages[2](stages[1](stages[0](v)))
    torch.testing.assert_close(model.d(v), plain)
    assert not torch.allclose(found, plain)


def test_semi_the_categories_are_the_classes_and_no_vote_names_them():
    model, rows = make(mode="semi", classes=3).eval(), batch(30)
    model.votes.counts.zero_()
    model.votes.counts[:, 1] = 1  # a vote would call every category 1
    p = model.d.net(SPEC.to_signed(rows["x"])).softmax(1)
    torch.testing.assert_close(model.classify(rows["x"]), p)
    values = model.evaluate(rows)
    assert torch.equal(values["acc"], (p.argmax(1) == rows["y"]).double())
    assert "cluster_acc" not in values and len(p.argmax(1).unique()) > 1


def test_r1_is_of_how_sure_the_discriminator_is():
    model, rows = make(loop=LoopOptions(r1=3.0)), batch()
    r1 = model.discriminator_loss(rows)["r1"]
    x = SPEC.to_signed(rows["x"]).requires_grad_()
    p = model.d.net(x).softmax(1)
    (slope,) = torch.autograd.grad((p * p.log()).sum(), x)
    torch.testing.assert_close(r1, 1.5 * slope.square().sum((1, 2, 3)).mean())


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_the_networks_and_the_game_are_those_that_are_asked_for(arch):
    spec = DataSpec((1, 16, 16), 17, 3)
    options = {"prior": "uniform", "k": 3, "lr_d": 0.2, "lr_g": 0.1, "beta1": 0.3}
    model = CatGAN(spec, arch=arch, norm_d="layer", norm_g="batch", **options)
    kinds = [
        {type(m).__name__[:5] for m in net.modules() if "Norm" in type(m).__name__}
        for net in (model.d, model.g)
    ]
    assert kinds == [{"Layer" if arch == "mlp" else "Group"}, {"Batch"}]
    made = model.optimisers()
    assert {p: o.defaults["lr"] for p, o in made.items()} == {"d": 0.2, "g": 0.1}
    assert all(o.defaults["betas"] == (0.3, 0.999) for o in made.values())
    assert [(p.player, p.times(0)) for p in model.phases()] == [("d", 3), ("g", 1)]
    assert model.codes(500).abs().max() <= 1


def test_what_it_cannot_model_is_refused():
    for options, message in (
        ({"mode": "semi", "spec": DataSpec((2,))}, "needs labels"),
        ({"mode": "semi", "classes": 20}, "free in mode unsup"),
        ({"cross_rank": "none"}, "gather, local"),
        ({"loop": LoopOptions(label_smooth=0.9)}, "label_smooth"),
    ):
        with pytest.raises(ValueError, match=message):
            CatGAN(**{"spec": SPEC, **options})
    with pytest.raises(ValueError, match="name its categories"):
        CatGAN(DataSpec((2,))).classify(torch.zeros(2, 2))


@pytest.mark.slow
def test_a_hundred_labels_teach_digits():
    data = Digits(batch_size=128)
    torch.manual_seed(0)
    model = CatGAN(data.spec, mode="semi", labels=100, norm_d="layer")
    fit(model, data, 1500)
    assert model.eval().evaluate(data.examples(None, "val"))["acc"].mean() > 0.85
