"""A model that is asked for what it cannot give says so in one line, whichever model it is."""

import pytest
import torch

from zoo import registry
from zoo.core import DataSpec, Image, Label, Spec
from zoo.core.asked import ASKED
from zoo.core.draw import draw

SPEC = DataSpec((1, 8, 8), 2, 10, "digits")
LARGE = DataSpec((1, 16, 16), 17, 10, "digits")
PAIR = Spec("pairs", a=Image((1, 16, 16), 17), b=Image((1, 16, 16), 17))
SOURCED = Spec("sourced", x=Image((3, 16, 16), 256), source=Image((1, 16, 16), 256))
CLUTTER = Spec("c", a=Image((3, 16, 16), 17), b=Image((1, 16, 16), 17), y=Label(10))
LARGER = Spec("larger", x=Image((1, 16, 16), 17), source=Image((1, 4, 4), 257))
BLEND = Spec(
    "blend",
    **{k: Image((3, 32, 32), 256) for k in ("x", "source", "pasted", "destination")},
    mask=Image((1, 32, 32), 2),
)
TOLD = {  # the models that are told the class, or can be
    "aae": {"mode": "sup", "width": 8},
    "acgan": {"width": 4},
    "am_gan": {"mode": "predefined", "width": 4},
    "cgan": {},
    "cvae": {"width": 8},
    "cvae_gan": {"width": 4},
    "fvsbn": {"conditional": True},
    "gated_pixelcnn": {"width": 8},
    "glow": {"conditional": True, "width": 4},
    "made": {"conditional": True, "hidden": 8},
    "pixelcnn": {"conditional": True, "width": 8},
    "pixelcnn_pp": {"conditional": True, "width": 4},
    "pixelrnn": {"conditional": True, "width": 8},
}


def build(name, **options):
    known = registry.entry(name).parameters
    chosen = {k: v for k, v in {**TOLD.get(name, {}), **options}.items() if k in known}
    for spec in (SPEC, LARGE, PAIR, SOURCED, CLUTTER, LARGER, BLEND):
        try:
            return registry.create(name, spec, **chosen).eval()
        except ValueError:
            continue
    return registry.create(name, DataSpec((1, 16, 16), 256, 10), **chosen).eval()


@pytest.mark.parametrize("name", registry.list(can="sample"))
def test_numbers_of_samples_that_mean_nothing_are_refused(name):
    model = build(name)
    told = {k: rows for k, rows in model.spec.example(1).items() if k in model.told}
    for n, error, said in ((-1, ValueError, "at least 1, got -1"), (0, ValueError, "got 0")):
        with pytest.raises(error, match=rf"^{name}: n is .*{said}$"):
            model.sample(n, **told)
        with pytest.raises(error, match=rf"^{name}: n is .*{said}$"):
            draw(model, n)
    for n in ("3", 2.5, None):
        with pytest.raises(TypeError, match=rf"^{name}: n is a whole number of samples, got "):
            model.sample(n, **told)


WRONG = {
    "outside 0..9": torch.tensor([0, 1, 10]),
    "outside 0..9$": torch.tensor([0, -1, 2]),
    "not whole numbers": torch.tensor([0.0, 1, 2]),
    "of 3 rows, got 2 rows": torch.tensor([0, 1]),
    "of 3 rows, got shape": torch.tensor(1),
    "rows of shape": torch.tensor([[0], [1], [2]]),
    "a tensor of 3 rows, got": [0, 1, 2],
}


@pytest.mark.parametrize("name", TOLD)
def test_what_a_model_is_told_must_be_rows_of_the_field(name):
    model = build(name)
    assert model.told == ("y",)
    x = model.spec.example(3)["x"]
    for said, y in WRONG.items():
        error = TypeError if isinstance(y, list) else ValueError
        with pytest.raises(error, match=rf"^{name} is told y .*{said}"):
            model.sample(3, y=y)
        with pytest.raises(error, match=rf"^{name} is told y .*{said}"):
            draw(model, 3, told={"y": y})
        for method in {"log_prob", "elbo", "inpaint"} & registry.entry(name).can:
            known = (torch.ones_like(x, dtype=torch.bool),) if method == "inpaint" else ()
            with pytest.raises(error, match=rf"^{name} is told y .*{said}"):
                getattr(model, method)(x, *known, y=y)


def test_training_and_super_calls_are_not_tested_again(monkeypatch):
    calls = []
    monkeypatch.setattr("zoo.core.asked.check_asked", lambda *a: calls.append(a[1]))
    model = build("made")
    x = torch.zeros(2, 1, 8, 8)
    model.train().log_prob(x, y=torch.tensor([0, 1]))
    assert not calls
    model.eval().log_prob(x, y=torch.tensor([0, 1]))
    model.sample(2, y=torch.tensor([0, 1]))
    assert calls == ["log_prob", "sample"] and {*calls} < {*ASKED}


def test_mixed_labels_of_cgan_are_still_taken():
    model = build("cgan")
    assert model.sample(2, y=torch.full((2, 10), 0.1)).shape == (2, 1, 8, 8)
