"""The auto-encoder: what a linear one finds, what is shared when tied, what denoising hides, and
the classifier made of it.
"""

import pytest
import torch
from torch.nn import functional as F

from tests.support import Given, fit
from zoo.baseline.autoencoder import Autoencoder, principal_components
from zoo.core import Batch, DataSpec
from zoo.core.noise import Noise
from zoo.core.transfer import fit_classifier
from zoo.data.digits import Digits

SPEC = DataSpec((1, 4, 4), 17, 10)


def images(n: int = 8) -> torch.Tensor:
    return torch.randint(0, 17, (n, 1, 4, 4), generator=torch.Generator().manual_seed(1)).float()


def make(**options) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(SPEC, **{"latent": 3, "hidden": (12,), **options})


def test_a_linear_one_finds_the_principal_subspace():
    torch.manual_seed(0)
    scales = torch.tensor([3.0, 2.5, 2.0, 0.7, 0.5, 0.4, 0.3, 0.2], dtype=torch.float64)
    x = (
        torch.randn(400, 8, dtype=torch.float64)
        * scales
        @ torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0]
    )
    x = x - x.mean(0)
    model = Autoencoder(
        DataSpec((8,)), variant="linear", latent=3, sigmoid=False, bias=False
    ).double()
    optimiser = torch.optim.LBFGS(
        model.parameters(), max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        loss = model.loss(Batch({"x": x}))["loss"]
        loss.backward()
        return loss

    optimiser.step(closure)
    best = torch.linalg.svd(
        x
    )  # a route of its own: the error is the sum of the squares of the singular values left out
    assert model.loss(Batch({"x": x}))["mse"].item() == pytest.approx(
        (best.S[3:].square().sum() / x.numel()).item(), rel=0.01
    )
    found = torch.linalg.qr(model.decoder.weight.detach())[0]
    cosines = torch.linalg.svdvals(found.T @ best.Vh[:3].T)
    assert torch.acos(cosines.clamp(max=1.0)).max() < 0.05


def test_tied_weights_are_one_tensor_in_both_directions():
    model = make(variant="linear", tied=True)
    assert (
        sum(
            v.shape == (3, 16) or v.shape == (16, 3)
            for n, v in model.state_dict().items()
            if n != "components"
        )
        == 1
    )
    z, out = torch.eye(3), {}
    for when in ("before", "after"):
        w = model.encoder[-1].weight
        out[when] = (model.decoded(z) - model.c).detach(), w.detach().clone()
        torch.testing.assert_close(*out[when])
        if when == "before":
            model.loss(Batch({"x": images()}))["loss"].backward()
            torch.optim.SGD(model.parameters(), 0.1).step()
    assert not torch.equal(out["before"][0], out["after"][0]) and not torch.equal(
        out["before"][1], out["after"][1]
    )
    free = make(variant="linear")
    assert (
        free.decoder.weight.untyped_storage().data_ptr()
        != free.encoder[-1].weight.untyped_storage().data_ptr()
    )


def test_the_classifier_starts_from_a_copy_of_the_encoder():
    model = make()
    copy = model.to_classifier(10)
    for (name, mine), (other, theirs) in zip(
        model.encoder.named_parameters(), copy.body.encoder.named_parameters(), strict=True
    ):
        assert name == other and torch.equal(mine, theirs) and mine.data_ptr() != theirs.data_ptr()
    scratch = model.to_classifier(10, "scratch")
    assert not torch.equal(scratch.body.encoder[1][0].weight, model.encoder[1][0].weight)


@pytest.mark.parametrize(
    ("mode", "moves"), [("frozen", False), ("finetune", True), ("scratch", True)]
)
def test_a_frozen_encoder_has_no_gradient_and_stays(mode, moves):
    torch.manual_seed(0)
    model = make()
    classifier = model.to_classifier(10, mode)
    before = [p.detach().clone() for p in classifier.body.encoder.parameters()]
    optimiser = classifier.configure_optimizers()
    for _ in range(5):
        F.cross_entropy(classifier(images()), torch.arange(8)).backward()
        assert all((p.grad is not None) == moves for p in classifier.body.encoder.parameters())
        optimiser.step()
    moved = [
        not torch.equal(a, b)
        for a, b in zip(before, classifier.body.encoder.parameters(), strict=True)
    ]
    assert moved == [moves] * len(before)


def test_with_everything_hidden_all_reconstructions_are_one_while_the_target_is_still_each_image():
    model, x = make(denoise=1.0), images()
    seen = []
    model.encoder.register_forward_hook(
        lambda net, args, out: seen.append(model.end(model.decoded(out)))
    )
    losses = [model.loss(Batch({"x": row[None]}))["loss"].item() for row in x]
    assert all(torch.equal(r, seen[0]) for r in seen) and len(set(losses)) == len(losses)
    expected = 0.5 * (seen[0] - SPEC.to_unit(x[0]).flatten()).square().sum()
    assert losses[0] == pytest.approx(expected.item(), rel=1e-5)


def test_denoising_hides_the_given_share_of_inputs_and_nothing_in_use():
    model = Autoencoder(DataSpec((1, 8, 8), 17), denoise=0.3)
    seen = []
    model.encoder.register_forward_hook(lambda net, args, out: seen.append(args[0]))
    x = torch.full((500, 1, 8, 8), 8.0)
    model.noise = Noise(0, "test")
    model.loss(Batch({"x": x}))
    assert (seen[0] == 0).float().mean().item() == pytest.approx(0.3, abs=0.01) and set(
        seen[0].unique().tolist()
    ) == {0.0, 0.5}
    model.encode(x)
    assert torch.equal(seen[1], x / 16)


def test_there_is_nothing_to_sample():
    with pytest.raises(NotImplementedError, match="cannot sample"):
        make().sample(2)


def test_the_reference_lines_are_those_of_the_mean_and_of_principal_components():
    model = Autoencoder(DataSpec((1, 8, 8), 17), latent=5)
    data = Digits()
    train, val = (data.examples(split=split)["x"].double() / 16 for split in ("train", "val"))
    model.initialise_from(Batch({"x": data.examples()["x"]}))
    _, s, v = torch.linalg.svd((train - train.mean(0)).flatten(1), full_matrices=False)
    centred = (val - train.mean(0)).flatten(1)
    found = {k: t.mean().item() for k, t in model.evaluate(data.examples(split="val")).items()}
    assert found["mse_mean_image"] == pytest.approx(centred.square().mean().item(), rel=1e-4)
    assert found["mse_pca"] == pytest.approx(
        (centred.square().sum() - (centred @ v[:5].T).square().sum()).item() / val.numel(), rel=1e-4
    )
    assert found["mse"] / found["mse_over_pca"] == pytest.approx(
        (s[5:].square().sum() / train.numel()).item(), rel=1e-4
    )
    q = principal_components(train.flatten(1), 5)[1]
    torch.testing.assert_close(q.T @ q, torch.eye(5, dtype=torch.float64))


def test_objectives_are_half_the_squared_error_and_the_cross_entropy():
    x = images()
    for objective in ("l2", "bce"):
        model = make(objective=objective)
        made, v = model.end(model.decoded(model.encode(x))), SPEC.to_unit(x).flatten(1)
        cost = (
            0.5 * (v - made) ** 2
            if objective == "l2"
            else -(v * made.log() + (1 - v) * (1 - made).log())
        )
        torch.testing.assert_close(model.loss(Batch({"x": x}))["loss"], cost.sum(1).mean())


@pytest.mark.parametrize(
    "options",
    [{"variant": "linear"}, {"variant": "mlp"}, {"variant": "conv", "width": 8}],
    ids=lambda o: o["variant"],
)
def test_every_variant_reconstructs_what_it_was_trained_on(options):
    torch.manual_seed(0)
    spec = DataSpec((1, 8, 8), 17)
    x = Digits().examples(8)["x"]
    model = Autoencoder(spec, **options, lr=1e-2)
    fit(model, Given(spec, x, batch_size=8), 100)
    assert (model.reconstruct(x) - x).abs().mean() < 0.4 * (x.mean(0) - x).abs().mean()


def pretrained(
    steps: int, seed: int = 0
) -> tuple[Autoencoder, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(seed)
    data = Digits()
    model = Autoencoder(data.spec)
    fit(model, data, steps)
    return model, data.examples(), data.examples(split="val")


def accuracies(model, train, val, seeds: range, per_class: int) -> dict[str, float]:
    """Mean accuracy of each mode over draws of ``per_class`` labelled digits of each class; all
    modes see the same rows.
    """
    out = dict.fromkeys(("finetune", "scratch", "frozen"), 0.0)
    for seed in seeds:
        order = torch.randperm(len(train["x"]), generator=torch.Generator().manual_seed(seed))
        rows = torch.cat([order[train["y"][order] == c][:per_class] for c in range(10)])
        for mode in out:
            made = fit_classifier(
                model, train["x"][rows], train["y"][rows], 10, mode, steps=150, seed=seed
            )
            out[mode] += made.accuracy(val["x"], val["y"]) / len(seeds)
    return out


def test_few_labels_go_a_long_way_from_a_trained_encoder():
    found = accuracies(*pretrained(1000), range(3), 5)
    assert (
        found["finetune"] > 0.65
        and found["frozen"] > 0.65
        and found["finetune"] >= found["scratch"] - 0.03
    ), found


@pytest.mark.slow
@pytest.mark.parametrize("per_class", [2, 5, 10])
def test_finetuning_is_no_worse_than_the_same_steps_from_scratch(per_class):
    found = accuracies(*pretrained(2200), range(10), per_class)
    assert found["finetune"] >= found["scratch"] - 0.01, found


def test_the_gradient_of_tied_weights_comes_from_both_directions():
    model, x = make(variant="linear", tied=True), images()
    model.loss(Batch({"x": x}))["loss"].backward()
    w = model.encoder[-1].weight.detach().clone().requires_grad_()
    v = (x / 16).flatten(1)
    out = torch.sigmoid((v @ w.T + model.encoder[-1].bias.detach()) @ w + model.c.detach())
    (0.5 * (out - v).square()).sum(1).mean().backward()
    torch.testing.assert_close(model.encoder[-1].weight.grad, w.grad)


def test_options_reach_the_optimiser_and_the_activation():
    group = make(weight_decay=0.3, lr=0.02).configure_optimizers().param_groups[0]
    assert (group["weight_decay"], group["lr"]) == (0.3, 0.02)
    for activation, kind in (("relu", torch.nn.ReLU), ("sigmoid", torch.nn.Sigmoid)):
        hidden = [type(m) for m in make(activation=activation).encoder.modules()]
        assert kind in hidden and {torch.nn.ReLU, torch.nn.Sigmoid} & {*hidden} == {kind}


@pytest.mark.parametrize(
    "bad",
    [{"variant": "deep"}, {"tied": True}, {"denoise": 1.5}, {"objective": "bce", "sigmoid": False}],
)
def test_bad_options_are_refused(bad):
    with pytest.raises(ValueError):
        make(**bad)
