"""Networks that are trained once: kept, believed only with their checksum, replaced by files."""

import dataclasses

import pytest
import torch

from zoo import auxiliary, pretrain
from zoo.auxiliary.look import Look, LookOptions
from zoo.core import Batch
from zoo.data.digits import Digits
from zoo.nn.perceptual import Percep, Vgg16

QUICK = dataclasses.replace(auxiliary.NETS["digitcls"], steps=30, enough=0.0)


@pytest.fixture
def quick(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(auxiliary.NETS, "digitcls", QUICK)
    return tmp_path / "cache"


def test_a_network_is_trained_once_and_frozen(quick, monkeypatch):
    first = auxiliary.net("digitcls", progress=False)
    assert len([*quick.iterdir()]) == 1 and not first.training
    assert not any(p.requires_grad for p in first.parameters())
    monkeypatch.setattr(auxiliary.Recipe, "trained", lambda *_: pytest.fail("trained again"))
    again = auxiliary.net("digitcls").state_dict()
    assert all(torch.equal(v, again[k]) for k, v in first.state_dict().items())


def test_a_file_that_was_changed_is_not_believed(quick):
    first = auxiliary.net("digitcls", progress=False).state_dict()
    (file,) = quick.iterdir()
    content = torch.load(file, weights_only=True)
    content["state"]["head.bias"][0] += 1
    torch.save(content, file)
    with pytest.warns(UserWarning, match="digitcls is trained again"):
        again = auxiliary.net("digitcls", progress=False).state_dict()
    assert torch.equal(again["head.bias"], first["head.bias"])


@pytest.mark.parametrize(
    "change", [{"steps": 31}, {"rate": 1e-3}, {"data": "shapes"}, {"options": {"size": 16}}]
)
def test_another_recipe_or_other_data_are_another_file(change):
    assert dataclasses.replace(QUICK, **change).of() != QUICK.of() == QUICK.of()


def test_the_seed_of_the_data_is_seen_in_the_file(quick):
    heads = auxiliary.NETS["agecls"]
    other = dataclasses.replace(heads, options={**heads.options, "seed": 1})
    assert other.of() != heads.of()


def test_other_images_and_another_network_below_are_another_file(quick, monkeypatch):
    text = auxiliary.NETS["text"]
    assert dataclasses.replace(text, upon=dataclasses.replace(text.upon, steps=9)).of() != text.of()
    before, examples = QUICK.of(), Digits.examples

    def mirrored(*args, **options):
        batch = examples(*args, **options)
        return Batch({**batch, "x": batch["x"].flip(3)}, batch.n)

    monkeypatch.setattr(Digits, "examples", mirrored)
    assert QUICK.of() != before


def test_a_network_that_is_right_too_seldom_is_no_network(quick):
    with pytest.raises(ValueError, match=r"digitcls is right 0\.\d+ of the time, and should be 1"):
        dataclasses.replace(QUICK, steps=1, enough=1.0).trained(progress=False)
    assert not quick.exists()


def test_what_is_right_is_counted_and_so_is_the_usual_answer(quick):
    net = auxiliary.net("digitcls", progress=False)
    data = QUICK.module()
    held_out, train = data.examples(split="val"), data.examples()
    with torch.no_grad():
        said = net(data.spec.to_unit(held_out["x"]).float()).argmax(1)
    assert QUICK.score(net) == pytest.approx((said == held_out["y"]).double().mean().item())
    commonest = train["y"].long().bincount().argmax()
    assert QUICK.chance() == pytest.approx((held_out["y"] == commonest).double().mean().item())


@pytest.mark.slow
@pytest.mark.parametrize("name", auxiliary.NETS)
def test_every_network_is_right_as_often_as_it_should_be_and_more_than_by_chance(name):
    recipe = auxiliary.NETS[name]
    assert recipe.score(auxiliary.net(name)) >= recipe.enough > recipe.chance() + 0.05


# -- the command ----------------------------------------------------------------------------------
def test_the_command_lists_trains_and_says_where(quick, capsys):
    assert pretrain.main([]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [*auxiliary.NETS] == [*pretrain.NETS]
    for word in ("trained in", "kept"):
        assert pretrain.main(["--net", "digitcls"]) == 0
        said = capsys.readouterr().out
        assert word in said and str(next(quick.iterdir())) in said and "by chance" in said


def test_a_name_that_is_none_has_a_hint(capsys):
    assert pretrain.main(["--net", "digitcl"]) == 2
    assert "did you mean digitcls?" in capsys.readouterr().err


# -- what a model looks through -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "vgg16"}, "are in a file: set look.weights to it"),
        ({"weights": "x.pt"}, "those of shapes are its own, got 'x.pt'"),
        ({"layers": ("relu2_2",)}, "a layer of shapes is one of mid, high, got 'relu2_2'"),
        ({"kind": "vgg16", "weights": "x", "layers": ("mid",)}, "relu5_3, got 'mid'"),
        ({"kind": "jit", "weights": "x", "layers": ("mid",)}, "a layer of jit is left to it"),
    ],
)
def test_a_network_that_cannot_be_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        LookOptions(**options)


def test_vgg16_is_taken_from_its_file_and_a_missing_one_is_said(tmp_path):
    look = Look(LookOptions("vgg16", str(tmp_path / "vgg.pt")))
    with pytest.raises(ValueError, match=r"there is no file .*vgg.pt"):
        look.load()
    (tmp_path / "vgg.pt").write_text("no weights")
    with pytest.raises(ValueError, match=r"is no state_dict .* save one with torch.save"):
        look.load()
    torch.manual_seed(1)
    given = Vgg16(("relu2_2",))
    names = ("0", "2", "5", "7")
    state = {
        f"features.{n}.{k}": v
        for n, conv in zip(names, given.convs, strict=True)
        for k, v in conv.state_dict().items()
    }
    torch.save(state, tmp_path / "vgg.pt")
    look.load()
    x = torch.rand(2, 3, 16, 16)
    (wanted,) = given.features(x, ("relu2_2",))
    torch.testing.assert_close(look.features(x)[0], wanted)
    assert not any(p.requires_grad for p in look.parameters())


def test_a_script_of_ones_own_is_run_and_is_no_part_of_a_checkpoint(tmp_path):
    torch.manual_seed(0)
    file, net = tmp_path / "net.pt", torch.nn.Conv2d(3, 2, 3)
    look = Look(LookOptions("jit", str(file)))
    with pytest.raises(ValueError, match="is no TorchScript module"):
        look.load()
    torch.jit.trace(net, torch.zeros(1, 3, 8, 8)).save(str(file))
    look.load()
    p, q = torch.rand(2, 2, 3, 8, 8)
    wanted = (net(p) - net(q)).square().mean()
    torch.testing.assert_close(look(p, q), wanted)
    assert not look.state_dict()


def test_the_distance_is_that_of_the_layers_asked_for_and_0_of_one_image():
    torch.manual_seed(0)
    p, q = torch.rand(2, 2, 3, 16, 16)
    look = Look(LookOptions(layers=("mid", "high")))
    net: Percep = look.net
    parts = [
        (a - b).square().mean()
        for a, b in zip(net.features(p, net.names), net.features(q, net.names), strict=True)
    ]
    torch.testing.assert_close(look(p, q), sum(parts))
    torch.testing.assert_close(Look()(p, q), parts[0])  # "mid" alone
    assert look(p, p).item() == 0
    assert look(p, p.roll(1, 3)).item() > 0  # of the same mean
