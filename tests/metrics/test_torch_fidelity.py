"""With the same (random) Inception weights, FID, KID and IS are torch-fidelity's; anti-aliasing
would show.
"""

import pytest
import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kernel_poly, mmd2

from zoo.core.spec import DataSpec
from zoo.metrics import FrechetDistance, Inception
from zoo.metrics.inception_score import inception_score
from zoo.metrics.kid import squared_mmd

pytestmark = pytest.mark.xdist_group("inception")  # one worker measures, for all
N = 16
SPEC = DataSpec((3, 24, 24), 256)


def random_weights(path):
    """A file of random weights that keep activations alive, as torch-fidelity reads it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.save({}, path)
        net = FeatureExtractorInceptionV3("random", ["2048"], feature_extractor_weights_path=path)
    g = torch.Generator().manual_seed(0)
    for m in net.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            m.weight.normal_(0, (2 / m.weight[0].numel()) ** 0.5, generator=g)
    torch.save(net.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Ours and torch-fidelity's features and logits of the same images."""
    torch.set_num_threads(1)
    path = random_weights(tmp_path_factory.mktemp("weights") / "random.pth")
    g = torch.Generator().manual_seed(1)
    real = torch.randint(0, 256, (N, *SPEC.shape), generator=g).float()
    fake = (real.flip(0) * 0.7 + 40 * torch.rand(N, 1, 1, 1, generator=g)).round().clamp(0, 255)
    ours = Inception(path)
    theirs = FeatureExtractorInceptionV3(
        "theirs", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
    )
    with torch.no_grad():
        return {
            "ours": [ours(x, SPEC) for x in (real, fake)],
            "theirs": [theirs(x.to(torch.uint8)) for x in (real, fake)],
            "net": ours,
            "real": real,
        }


@pytest.mark.slow
def test_fid_agrees_to_a_hundred_thousandth(measured):
    metric = FrechetDistance(2048)
    for (features, _), real in zip(measured["ours"], (True, False), strict=True):
        metric.update(features, real=real)
    stats = [fid_features_to_statistics(f) for f, _ in measured["theirs"]]
    expected = fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    assert expected > 0.01
    assert metric.compute().item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_kid_and_inception_score_agree(measured):
    (a, _), (b, q) = measured["theirs"]
    k = [
        kernel_poly(
            u.double().numpy(),
            v.double().numpy(),
            kid_kernel_poly_degree=3,
            kid_kernel_poly_gamma=None,
            kid_kernel_poly_coef0=1,
        )
        for u, v in ((a, a), (a, b), (b, b))
    ]
    ours = squared_mmd(measured["ours"][0][0], measured["ours"][1][0]).item()
    assert ours == pytest.approx(mmd2(*k), rel=1e-6)
    expected = isc_features_to_metric(q, 4, True, 2020)
    p = measured["ours"][1][1]
    import numpy as np

    order = np.random.RandomState(2020).permutation(len(p))  # their shuffle
    mean, sd = inception_score(p[order], splits=4, seed=None)
    assert mean.item() == pytest.approx(expected["inception_score_mean"], rel=1e-5)
    assert sd.item() == pytest.approx(expected["inception_score_std"], rel=1e-3)


@pytest.mark.slow
def test_images_are_resized_without_anti_aliasing(measured):
    """Shrinking is where it matters: the anti-aliased network input gives other features."""
    big = torch.randint(
        0, 256, (4, 3, 400, 400), generator=torch.Generator().manual_seed(2)
    ).float()
    spec = DataSpec((3, 400, 400), 256)
    net = measured["net"]
    with torch.no_grad():
        plain = net(big, spec)[0]
        theirs = net.net(big.to(torch.uint8))[0]
        smooth = (
            nn.functional.interpolate(big, (299, 299), mode="bilinear", antialias=True)
            .round()
            .clamp(0, 255)
        )
        blurred = net(smooth, DataSpec((3, 299, 299), 256))[0]
    assert torch.equal(plain, theirs)
    assert (plain - blurred).norm() > 0.05 * plain.norm()


@pytest.mark.slow
def test_grey_images_are_repeated_and_levels_rounded_to_bytes(measured):
    net, grey = measured["net"], torch.arange(17.0).repeat(8)[:128].view(2, 1, 8, 8)
    with torch.no_grad():
        found = net(grey, DataSpec((1, 8, 8), 17))[0]
        expected = net.net((grey * 255 / 16).round().to(torch.uint8).repeat(1, 3, 1, 1))[0]
    assert torch.equal(found, expected)
    with pytest.raises(ValueError, match="grey or RGB"):
        net(torch.zeros(1, 2, 8, 8), DataSpec((2, 8, 8), 17))
