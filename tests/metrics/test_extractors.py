"""Extractors say who they are, give the same features everywhere, and never reach for the
network.
"""

import hashlib
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from tests.support import Given
from zoo.core.spec import DataSpec
from zoo.data.digits import Digits
from zoo.metrics import DataNet, Inception, Pixels, choose, extractors, inception

SPEC = DataSpec((1, 6, 5), 4, 3, "shapes (small)")


def shapes(n=60, spec=SPEC, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (n,), generator=g)
    x = torch.randint(2, (n, *spec.shape), generator=g).float()
    x[torch.arange(n), 0, y] = 3  # a bright row tells the class
    return x, y


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(extractors, "STEPS", 80)


def test_datanet_learns_to_classify_held_out_digits():
    data = Digits()
    net = choose("auto", data, progress=False)
    held_out = data.examples(split="val")
    features, p = net(held_out["x"], data.spec)
    assert net.name == "digitsnet" and features.shape == (180, 64) and p.shape == (180, 10)
    assert (p.argmax(1) == held_out["y"]).float().mean() > 0.95
    train = net(data.examples()["x"], data.spec)[0]
    assert train.var(0).mean().item() == pytest.approx(1, rel=1e-4)


def test_datanet_is_a_function_of_the_data_and_leaves_the_random_state_alone(brief, tmp_path):
    x, y = shapes()
    torch.manual_seed(5)
    first = DataNet(SPEC, x, y, cache=tmp_path / "a", progress=False)
    drawn = torch.rand(3)
    torch.manual_seed(6)
    second = DataNet(SPEC, x, y, cache=tmp_path / "b", progress=False)
    other = DataNet(SPEC, x.flip(3), y, cache=tmp_path / "b", progress=False)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))
    assert first.weights_hash == second.weights_hash != other.weights_hash
    assert first.name == "shapesnet" and not any(p.requires_grad for p in first.parameters())


def test_datanet_is_trained_once_and_again_when_the_cache_is_damaged(brief, tmp_path, monkeypatch):
    x, y = shapes()
    first = DataNet(SPEC, x, y, cache=tmp_path, progress=False)
    (file,) = tmp_path.iterdir()  # and no half-written file beside it
    trained = []
    train = DataNet._train
    monkeypatch.setattr(DataNet, "_train", lambda self, *a: (trained.append(1), train(self, *a)))
    assert (
        DataNet(SPEC, x, y, cache=tmp_path, progress=False).weights_hash == first.weights_hash
        and not trained
    )
    for damage in (b"", b"no tensors here", file.read_bytes()[:2000]):
        file.write_bytes(damage)
        with pytest.warns(UserWarning, match="damaged"):
            again = DataNet(SPEC, x, y, cache=tmp_path, progress=False)
        assert again.weights_hash == first.weights_hash
    assert len(trained) == 3


def test_a_cache_with_other_weights_inside_is_not_believed(brief, tmp_path):
    x, y = shapes()
    first = DataNet(SPEC, x, y, cache=tmp_path, progress=False)
    (file,) = tmp_path.iterdir()
    torch.save({"body.0.weight": torch.zeros(1)}, file)
    with pytest.warns(UserWarning, match="damaged"):
        assert (
            DataNet(SPEC, x, y, cache=tmp_path, progress=False).weights_hash == first.weights_hash
        )


def test_a_cache_that_cannot_be_written_is_only_a_warning(brief, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="ZOO_CACHE"):
        DataNet(SPEC, *shapes(), cache=tmp_path / "file", progress=False)


def test_datanet_without_labels_gives_features_that_tell_images_apart(brief):
    spec = DataSpec((1, 6, 5), 4, 0, "shapes")
    x, y = shapes()
    net = choose("datanet", Given(spec, x), progress=False)
    features, p = net(x, spec)
    assert p is None and net.num_classes is None and features.shape == (60, 64)
    centre = torch.stack([features[y == c].mean(0) for c in range(3)])
    assert (torch.cdist(features, centre).argmin(1) == y).float().mean() > 0.8


@pytest.mark.parametrize("shape", [(1, 3, 3), (3, 40, 17), (2, 1, 9)])
def test_datanet_and_pixels_take_any_size(shape, brief, monkeypatch):
    monkeypatch.setattr(extractors, "STEPS", 2)
    spec = DataSpec(shape, 256, 2)
    x, y = torch.randint(0, 256, (10, *shape)).float(), torch.arange(10) % 2
    for net in (DataNet(spec, x, y, progress=False), Pixels(spec, x, y)):
        features, p = net(x, spec)
        assert (
            features.shape == (10, net.dim)
            and p.shape == (10, 2)
            and torch.isfinite(features).all()
        )
        assert torch.allclose(p.sum(1), torch.ones(10).double())


@pytest.mark.parametrize(("size", "larger"), [(16, False), (17, True)])
def test_what_the_first_network_cannot_learn_trains_a_larger_one(
    size, larger, brief, monkeypatch, tmp_path
):
    monkeypatch.setattr(extractors, "STEPS", 4)
    spec, g = DataSpec((1, size, size), None, 4, "clouds"), torch.Generator().manual_seed(0)
    x, y = torch.rand(100, *spec.shape, generator=g), torch.arange(100) % 4  # nothing to learn
    fitted = []
    fit = DataNet._fit
    monkeypatch.setattr(DataNet, "_fit", lambda self, *a: (fitted.append(1), fit(self, *a)))
    first = DataNet(spec, x, y, cache=tmp_path, progress=False)
    again = DataNet(spec, x, y, cache=tmp_path, progress=False)  # from the cache
    assert len(fitted) == 1 + larger and first.describe()["larger_network"] == larger
    assert again.describe() == first.describe()
    found = [net(x, spec) for net in (first, again)]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    alone = first(x[:1], spec)[0]  # the norm is not that of the batch
    assert torch.allclose(alone, found[0][0][:1], atol=1e-4)
    (file,) = tmp_path.glob("*.pt")
    file.write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"):
        third = DataNet(spec, x, y, cache=tmp_path, progress=False)
    assert third.weights_hash == first.weights_hash


def test_a_network_of_fewer_steps_is_not_taken_for_the_recipes(monkeypatch):
    x, y = shapes()
    nets = []
    for steps in (2, 3, 2):
        monkeypatch.setattr(extractors, "STEPS", steps)
        nets.append(DataNet(SPEC, x, y, cache="kept", progress=False).weights_hash)
    assert nets[0] == nets[2] != nets[1]


def test_datanet_trains_inside_a_validation_loop(brief):
    x, y = shapes()
    with torch.inference_mode():
        inside = DataNet(SPEC, x * 1, y * 1, cache="inside", progress=False)
    assert inside.weights_hash == DataNet(SPEC, x, y, cache="outside", progress=False).weights_hash


def test_pixels_are_the_pixels_with_a_classifier_when_labelled():
    data = Digits()
    train, held_out = data.examples(), data.examples(split="val")
    net = Pixels(data.spec, train["x"], train["y"])
    features, p = net(held_out["x"], data.spec)
    assert torch.equal(features, held_out["x"].flatten(1) / 16)
    assert (p.argmax(1) == held_out["y"]).float().mean() > 0.9
    big = Digits(size=32)
    pooled = Pixels(big.spec, big.examples()["x"])(
        held_out["x"].repeat_interleave(4, 2).repeat_interleave(4, 3), big.spec
    )
    assert torch.allclose(pooled[0], features) and pooled[1] is None


def test_pixel_probabilities_are_scikit_learns_also_with_two_or_missing_classes():
    from sklearn.linear_model import LogisticRegression

    x, y = shapes()
    for kept in ([0, 1, 2], [0, 2]):
        rows = torch.isin(y, torch.tensor(kept))
        p = Pixels(SPEC, x[rows], y[rows])(x, SPEC)[1]
        pooled = (x / 3).flatten(1).double().numpy()
        expected = (
            LogisticRegression(max_iter=2000)
            .fit(pooled[rows.numpy()], y[rows].numpy())
            .predict_proba(pooled)
        )
        assert torch.allclose(p[:, kept], torch.from_numpy(expected), atol=1e-4) and torch.allclose(
            p.sum(1), torch.ones(60).double()
        )


def test_missing_inception_weights_say_which_file_goes_where(tmp_path, monkeypatch):
    with pytest.raises(
        FileNotFoundError, match=rf"{inception.INCEPTION_FILE}.*{tmp_path}.*ZOO_INCEPTION"
    ):
        choose("inception", Digits())
    monkeypatch.setenv("ZOO_INCEPTION", str(tmp_path / "nowhere.pth"))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        choose("auto", Digits())
    with pytest.raises(FileNotFoundError, match="given"):
        Inception(tmp_path / "given.pth")


def test_nothing_is_downloaded_unless_asked(monkeypatch):
    asked = []
    monkeypatch.setattr(
        torch.hub, "load_state_dict_from_url", lambda url, **o: asked.append(url) or {}
    )
    with pytest.raises(FileNotFoundError):
        choose("inception", Digits())
    assert not asked
    with pytest.raises(ValueError, match="Missing key"):  # the stub's empty weights
        choose("inception", Digits(), inception_weights="download")
    assert asked == [inception.INCEPTION_URL]


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


HOSTILE = {
    "code": lambda file: torch.save({"fc.bias": Evil(), "state": Evil()}, file),
    "a pickle": lambda file: file.write_bytes(pickle.dumps(Evil(), protocol=2)),
    "other tensors": lambda file: torch.save({"fc.bias": torch.zeros(3)}, file),
    "no dict": lambda file: torch.save([torch.zeros(3)], file),
    "half a file": lambda file: file.write_bytes(b"PK\x03\x04" + bytes(40)),
    "nothing": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("<html>not found</html>"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_that_is_not_inceptions_is_refused_in_one_line_and_runs_nothing(what, tmp_path):
    HOSTILE[what](tmp_path / "odd.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=r"odd\.pth does not hold .*; fetch https") as caught:
            Inception(tmp_path / "odd.pth")
    assert "\n" not in str(caught.value) and not Path("ran").exists()


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_cache_is_refused_in_one_line_and_runs_nothing(what, brief, tmp_path):
    x, y = shapes()
    first = DataNet(SPEC, x, y, cache=tmp_path, progress=False)
    (file,) = tmp_path.glob("*.pt")
    HOSTILE[what](file)
    with pytest.warns(UserWarning, match="trained again") as caught:
        again = DataNet(SPEC, x, y, cache=tmp_path, progress=False)
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    assert again.weights_hash == first.weights_hash and not Path("ran").exists()


def test_a_cache_with_one_changed_weight_is_not_believed(brief, tmp_path):
    x, y = shapes()
    first = DataNet(SPEC, x, y, cache=tmp_path, progress=False)
    (file,) = tmp_path.glob("*.pt")
    whole = torch.load(file, weights_only=True)
    changed = {**whole["state"], "scale": whole["state"]["scale"] * 2}
    other = DataNet(SPEC, x.flip(3), y, cache=tmp_path / "b", progress=False)
    (others,) = (tmp_path / "b").glob("*.pt")
    for content in (
        {**whole, "state": changed},
        changed,  # without a checksum, as before there was one
        torch.load(others, weights_only=True),  # right, but of other data
    ):
        torch.save(content, file)
        with pytest.warns(UserWarning, match="was changed.*trained again"):
            again = DataNet(SPEC, x, y, cache=tmp_path, progress=False)
        assert again.weights_hash == first.weights_hash != other.weights_hash
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # and what was trained again is kept
        DataNet(SPEC, x, y, cache=tmp_path, progress=False)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("n", [1, 20])
def test_images_all_alike_teach_no_network_and_leave_no_cache(n, labelled, brief, tmp_path):
    spec = DataSpec((1, 6, 5), 4, 3 if labelled else 0, "black")
    y = torch.arange(n) % 3 if labelled else None
    with pytest.raises(ValueError, match=rf"the training images \({n}\) are all alike"):
        DataNet(spec, torch.zeros(n, 1, 6, 5), y, cache=tmp_path, progress=False)
    assert not [*tmp_path.iterdir()]
    features, p = Pixels(spec, torch.zeros(n, 1, 6, 5), y)(torch.zeros(4, 1, 6, 5), spec)
    assert features.isfinite().all() and (p is None or p.isfinite().all())


def test_inception_weights_that_are_not_the_papers_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(inception.Inception, "__init__", lambda self: None)
    torch.save({"fc.bias": torch.zeros(3)}, tmp_path / "mine.pth")
    with pytest.warns(UserWarning, match=r"mine\.pth is not the file of the papers \(sha256"):
        Inception._read(tmp_path / "mine.pth", False)
    sha = hashlib.sha256((tmp_path / "mine.pth").read_bytes()).hexdigest()
    monkeypatch.setattr(inception, "INCEPTION_HASH", sha[:8])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Inception._read(tmp_path / "mine.pth", False)


def test_auto_takes_inception_where_its_weights_are_found(tmp_path, monkeypatch):
    file = tmp_path / "hub" / "checkpoints" / inception.INCEPTION_FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    monkeypatch.setattr(extractors, "Inception", lambda path, download: ("inception", path))
    assert choose("auto", Digits()) == ("inception", None)
    assert inception.find_inception() == file
    monkeypatch.setenv("ZOO_INCEPTION", str(tmp_path / "hub"))  # a folder is no file
    with pytest.raises(FileNotFoundError, match="ZOO_INCEPTION"):
        inception.find_inception()


def test_unknown_extractors_are_refused():
    with pytest.raises(ValueError, match="auto, inception, datanet, pixels, got 'vgg'"):
        choose("vgg", Digits())


def test_description_names_weights_and_resize():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = Pixels(SPEC, *shapes()).describe()
    assert (
        said["extractor"] == "pixels"
        and len(said["weights"]) == 16
        and said["dim"] == 30
        and "8x8" in said["resize"]
    )


def test_other_libraries_take_as_many_threads_as_torch(monkeypatch):
    import sklearn.linear_model  # noqa: F401 - loads the libraries that are limited

    seen = []
    monkeypatch.setattr(
        "sklearn.linear_model.LogisticRegression.fit",
        lambda self, x, y: seen.extend(i["num_threads"] for i in threadpool_info()) or 1 / 0,
    )
    x, y = torch.randint(17, (20, 1, 8, 8)).float(), torch.arange(20) % 2
    with threadpool_limits(2, user_api="blas"), pytest.raises(ZeroDivisionError):
        Pixels(DataSpec((1, 8, 8), 17, 2), x, y)
    assert {*seen} == {torch.get_num_threads()} == {1}
