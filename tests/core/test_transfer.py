"""Features of a model, and classifiers made of them: what is shared, what moves, what is the same
for every mode.
"""

import copy

import pytest
import torch
from torch import nn

from zoo import registry
from zoo.bases import AdversarialModule
from zoo.core import Batch, DataSpec, GenerativeModule
from zoo.core.transfer import MODES, Classifier, copied, extract, features, fit_classifier, fresh
from zoo.data.digits import Digits
from zoo.data.paired import Paired

SPEC = DataSpec((1, 8, 8), 17, 10)


def digits(n=40, split="train"):
    batch = Digits().examples(n, split)
    return batch["x"], batch["y"]


def state(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_features_of_an_encoder_are_its_mean_code():
    model = registry.create("vae", SPEC, width=16)
    x, _ = digits()
    assert torch.equal(features(model)(x), model.posterior(x)[0])


def test_features_of_a_discriminator_are_all_its_layers_pooled():
    model = registry.create("dcgan", DataSpec((1, 16, 16), 17, 10), width=4).eval()
    x = Digits(size=16).examples(20)["x"]
    assert torch.equal(features(model)(x), model.d_features(x))
    assert features(model)(x).shape == (20, 16 * (4 + 8))


def test_features_of_an_mlp_discriminator_are_its_hidden_activations():
    model = registry.create("gan", DataSpec((3,)), width=5)
    x = torch.randn(6, 3)
    first = model.d.net.hidden[:3](x)
    second = model.d.net.hidden[3:](first)
    assert torch.equal(features(model)(x), torch.cat([first, second], 1))


def test_what_has_no_features_is_named_with_what_it_can():
    with pytest.raises(ValueError, match=r"made has no features.*it can inpaint, log_prob, sample"):
        features(registry.create("made", DataSpec((1, 4, 4), 2)))

    class NeedsLabel(AdversarialModule):
        def players(self):
            return {"d": nn.Bilinear(2, 3, 1)}

    with pytest.raises(ValueError, match="NeedsLabel's discriminator needs input2"):
        features(NeedsLabel(DataSpec((2,))))


def test_extracting_leaves_no_trace_and_does_not_depend_on_the_chunks():
    model = registry.create("dcgan", SPEC, width=4).train()
    x, _ = digits()
    before = state(model)
    torch.testing.assert_close(extract(model, x, rows=7), extract(model, x), rtol=1e-5, atol=1e-6)
    assert same(before, state(model)) and all(m.training for m in model.modules())


@pytest.mark.parametrize("name", ["vae", "dcgan"])
def test_a_finetuned_classifier_starts_from_a_copy_without_shared_storage(name):
    model = registry.create(name, SPEC, width=8)
    classifier = Classifier(model, 10)
    assert same(state(model), state(classifier.body))
    mine = {t.data_ptr() for t in model.state_dict().values()}
    assert not mine & {t.data_ptr() for t in classifier.state_dict().values()}
    before = state(model)
    fit_classifier(model, *digits(), 10, steps=3)
    assert same(before, state(model))


def test_the_copy_knows_nothing_of_the_trainer():
    class Heavy:
        def __deepcopy__(self, memo):
            raise AssertionError("the trainer was copied")

    model = registry.create("vae", SPEC, width=8)
    model._trainer = Heavy()
    assert Classifier(model, 10).body._trainer is None
    assert copied(model)._trainer is None


@pytest.mark.parametrize("name", ["vae", "dcgan"])
def test_a_frozen_encoder_gets_no_gradient_and_does_not_move(name):
    model = registry.create(name, SPEC, width=8)
    x, y = digits()
    classifier = Classifier(model, 10, "frozen").train()
    classifier.training_step({"x": x, "y": y}, 0).backward()
    assert all(p.grad is None for p in classifier.body.parameters())
    assert all(p.grad.abs().sum() > 0 for p in classifier.head.parameters())
    assert not any(m.training for m in classifier.body.modules())
    trained = fit_classifier(model, x, y, 10, "frozen", steps=5)
    assert same(state(model), state(trained.body))  # buffers of batch norm among them
    assert not torch.equal(trained.head.weight, classifier.head.weight)


@pytest.mark.parametrize("name", ["vae", "dcgan"])
def test_finetuning_moves_what_the_features_use_and_nothing_else(name):
    model = registry.create(name, SPEC, width=8)
    used = {"vae": "encoder.", "dcgan": "d.net.stages."}[name]
    trained = fit_classifier(model, *digits(), 10, steps=3)
    for key, p in trained.body.named_parameters():
        assert torch.equal(p, model.get_parameter(key)) != key.startswith(used), key


def test_from_scratch_is_the_same_architecture_with_other_weights():
    model = registry.create("vae", SPEC, width=8)
    a, b, c = (Classifier(model, 10, "scratch", seed=s) for s in (0, 0, 1))
    assert [p.shape for p in a.body.parameters()] == [p.shape for p in model.parameters()]
    assert same(state(a), state(b))
    for other in (model, c.body):
        assert not torch.equal(a.body.encoder[1].weight, other.encoder[1].weight)


def test_new_weights_do_not_disturb_the_random_state_and_follow_the_data_where_asked():
    class Centred(GenerativeModule):
        def __init__(self, spec):
            super().__init__(spec)
            self.linear = nn.Linear(2, 2)
            self.register_buffer("mean", torch.zeros(2))

        def initialise_from(self, batch):
            self.mean.copy_(batch["x"].mean(0))

        def encode(self, x):
            return self.linear(x - self.mean)

    model, before = Centred(DataSpec((2,))), torch.random.get_rng_state()
    assert torch.equal(
        fresh(model, 0, Batch({"x": torch.tensor([[1.0, 3.0], [3.0, 5.0]])})).mean,
        torch.tensor([2.0, 4.0]),
    )
    assert torch.equal(fresh(model).mean, torch.zeros(2))
    assert torch.equal(before, torch.random.get_rng_state())


def test_every_mode_takes_the_same_rows_in_the_same_number_of_steps(monkeypatch):
    seen = {}
    x, name = digits()[0], torch.arange(40)  # a class for each example, so that labels name rows
    loss = nn.functional.cross_entropy
    for mode in MODES:
        rows = seen.setdefault(mode, [])
        monkeypatch.setattr(
            nn.functional,
            "cross_entropy",
            lambda logits, y, r=rows: r.append(y.clone()) or loss(logits, y),
        )
        fit_classifier(
            registry.create("vae", SPEC, width=8), x, name, 40, mode, steps=7, batch_size=16
        )
    assert [len(v) for v in seen.values()] == [7, 7, 7]
    assert all(
        torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*seen.values(), strict=True)
    )
    assert len(torch.cat(seen["frozen"][:2]).unique()) == 32  # no row twice in a pass


def test_a_frozen_fit_is_the_heads_regression_on_the_features():
    model, (x, y) = registry.create("vae", SPEC, width=8), digits()
    h, head = extract(model, x), Classifier(model, 10, "frozen").head
    optimiser = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(5):
        optimiser.zero_grad()
        nn.functional.cross_entropy(head(h), y).backward()
        optimiser.step()
    trained = fit_classifier(model, x, y, 10, "frozen", steps=5)
    torch.testing.assert_close(trained.head.weight, head.weight, rtol=1e-4, atol=1e-6)


def test_a_fit_repeats_bit_for_bit_and_learns_its_examples():
    model = registry.create("vae", SPEC, width=32)
    a = fit_classifier(model, *digits(), 10, steps=100)
    assert same(state(a), state(fit_classifier(copy.deepcopy(model), *digits(), 10, steps=100)))
    assert a.accuracy(*digits()) == 1.0


def test_bad_modes_and_untrainable_features_are_refused():
    with pytest.raises(ValueError, match="finetune, frozen, scratch, got 'tune'"):
        Classifier(registry.create("vae", SPEC), 10, "tune")
    dbm = registry.create("dbm", DataSpec((1, 8, 8), 2, 10))
    with pytest.raises(ValueError, match=r"dbm's features pass no gradient.*mode=frozen"):
        Classifier(dbm, 10)
    assert (
        Classifier(dbm, 10, "frozen").head.in_features
        == features(dbm)(torch.zeros(1, 1, 8, 8)).shape[1]
    )


def test_a_discriminator_of_pairs_has_no_features_of_the_example_alone():
    spec = Paired("digits", "inpaint").spec
    model = registry.create("pix2pix", spec, width=4, levels=1)
    with pytest.raises(ValueError, match="pix2pix's discriminator needs rows beside the example"):
        features(model)
