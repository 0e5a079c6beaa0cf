"""Speed of flows beside a hand-written one and beside nflows, normflows and zuko, at equal
parameters, in one interleaved run.

    pip install nflows normflows zuko
    python benchmarks/flows.py            writes results/flows.md

Coupling flow: 64 real dimensions, 8 affine couplings, three linear layers of 256 units. Glow:
3x32x32, three levels of eight steps, 1.6 million parameters, against normflows' GlowBlock. Every
figure is the median of alternating repeats, in CPU seconds (on more threads, wall-clock seconds),
over the hand-written flow's (or normflows'); what a library lacks or is not installed is left out.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo import registry
from zoo.core import DataSpec

RESULTS = Path(__file__).parent / "results"
DIM, LAYERS, HIDDEN = 64, 8, 256


class ByHand(nn.Module):
    """What one writes without a library: halves, a network, exp(tanh(s)) and t."""

    def __init__(self) -> None:
        super().__init__()
        half = DIM // 2
        self.nets = nn.ModuleList(
            nn.Sequential(
                nn.Linear(half, HIDDEN),
                nn.ReLU(),
                nn.Linear(HIDDEN, HIDDEN),
                nn.ReLU(),
                nn.Linear(HIDDEN, 2 * half),
            )
            for _ in range(LAYERS)
        )

    def log_prob(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        log_det = 0
        for net in self.nets:
            t, s = net(a).chunk(2, 1)
            s = torch.tanh(s)
            a, b = b * s.exp() + t, a
            log_det = log_det + s.sum(1)
        z = torch.cat([a, b], 1)
        return -0.5 * (z.square() + 1.8378770664093453).sum(1) + log_det

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        a, b = torch.randn(n, DIM).chunk(2, 1)
        for net in reversed(self.nets):
            t, s = net(b).chunk(2, 1)
            a, b = b, (a - t) * (-torch.tanh(s)).exp()
        return torch.cat([a, b], 1)


Flow = tuple[
    nn.Module, Callable[[Tensor], Tensor], Callable[[int], Any]
]  # module, log_prob, sample


def ours() -> Flow:
    model = registry.create("realnvp", DataSpec((DIM,)), couplings=LAYERS, width=HIDDEN)
    return model, model.log_prob, lambda n: model.sample(n)


def by_hand() -> Flow:
    model = ByHand()
    return model, model.log_prob, model.sample


def of_normflows() -> Flow:
    import normflows as nf

    half = DIM // 2
    flows: list[Any] = []
    for _ in range(LAYERS):
        flows += [
            nf.flows.AffineCouplingBlock(nf.nets.MLP([half, HIDDEN, HIDDEN, 2 * half])),
            nf.flows.Permute(DIM, mode="swap"),
        ]
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(DIM, trainable=False), flows)
    return model, model.log_prob, lambda n: model.sample(n)[0]


def of_nflows() -> Flow:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow as NFlow
    from nflows.transforms import AffineCouplingTransform, CompositeTransform

    class Net(nn.Sequential):
        def __init__(self, a: int, b: int) -> None:
            super().__init__(
                nn.Linear(a, HIDDEN),
                nn.ReLU(),
                nn.Linear(HIDDEN, HIDDEN),
                nn.ReLU(),
                nn.Linear(HIDDEN, b),
            )

        def forward(self, x: Tensor, context: Any = None) -> Tensor:
            return super().forward(x)

    masks = [torch.arange(DIM) % 2 == i % 2 for i in range(LAYERS)]
    model = NFlow(
        CompositeTransform([AffineCouplingTransform(mask, Net) for mask in masks]),
        StandardNormal([DIM]),
    )
    return model, model.log_prob, model.sample


def of_zuko() -> Flow:
    import zuko

    model = zuko.flows.RealNVP(DIM, transforms=LAYERS, hidden_features=(HIDDEN, HIDDEN))
    return model, lambda x: model().log_prob(x), lambda n: model().sample((n,))


def our_glow() -> Flow:
    model = registry.create("glow", DataSpec((3, 32, 32), 256), scales=3, depth=8, width=GLOW_WIDTH)
    return model, model.log_density, lambda n: model.sample(n)


def normflows_glow() -> Flow:
    import normflows as nf

    scales, depth, c = 3, 8, 3
    q0, merges, flows = [], [], []
    for i in range(scales):
        channels = c * 2 ** (scales + 1 - i)
        steps = [
            nf.flows.GlowBlock(channels, GLOW_WIDTH, split_mode="channel", scale=True)
            for _ in range(depth)
        ]
        flows.append([*steps, nf.flows.Squeeze()])
        side = 32 // 2 ** (scales - i)
        shape = (c * 2 ** (scales - i), side, side) if i else (channels, side, side)
        if i:
            merges.append(nf.flows.Merge())
        q0.append(nf.distributions.DiagGaussian(shape))
    model = nf.MultiscaleFlow(q0, flows, merges, class_cond=False)
    return model, lambda x: model.log_prob(x, None), lambda n: model.sample(n)


GLOW_WIDTH = 128  # both at about 1.6 million parameters


def timed(
    flows: dict[str, Flow], x: Tensor, repeats: int, clock: Callable[[], float]
) -> dict[str, dict[str, float]]:
    """Median seconds of log_prob, sample and a training step of each, in turn."""

    def log_prob(flow: Flow) -> None:
        with torch.no_grad():
            flow[1](x)

    def draw(flow: Flow) -> None:
        with torch.no_grad():
            flow[2](len(x))

    def train(flow: Flow) -> None:
        flow[0].zero_grad()
        (-flow[1](x).mean()).backward()

    out: dict[str, dict[str, float]] = {name: {} for name in flows}
    for what, function in (("log_prob", log_prob), ("sample", draw), ("forward+backward", train)):
        times: dict[str, list[float]] = {name: [] for name in flows}
        for round_ in range(repeats + 3):
            for name, flow in flows.items():
                flow[0].train(what == "forward+backward")
                start = clock()
                function(flow)
                if round_ >= 3:
                    times[name].append(clock() - start)
        for name in flows:
            out[name][what] = statistics.median(times[name])
    return out


def build(makers: dict[str, Callable[[], Flow]]) -> dict[str, Flow]:
    flows = {}
    for name, make in makers.items():
        torch.manual_seed(0)
        try:
            flows[name] = make()
        except ImportError as error:
            print(f"{name}: {error}")
    return flows


def table(
    title: str, flows: dict[str, Flow], times: dict[str, dict[str, float]], base: str
) -> list[str]:
    lines = [
        f"## {title}",
        "",
        f"| over {base} | parameters | log_prob | sample | forward+backward |",
        "|---|---|---|---|---|",
    ]
    for name, row in times.items():
        cells = [
            f"{row[w] / times[base][w]:.2f} ({row[w] * 1e3:.2f} ms)"
            for w in ("log_prob", "sample", "forward+backward")
        ]
        parameters = sum(p.numel() for p in flows[name][0].parameters() if p.requires_grad)
        lines.append(f"| {name} | {parameters:,} | {' | '.join(cells)} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.threads == 1 else time.perf_counter
    lines = [
        "# Speed of flows",
        "",
        f"{args.threads} thread(s), {platform.machine()}, torch {torch.__version__}, medians of "
        f"{args.repeats}.",
        "",
    ]
    makers = {
        "by hand": by_hand,
        "zoo": ours,
        "normflows": of_normflows,
        "nflows": of_nflows,
        "zuko": of_zuko,
    }
    flows = build(makers)
    for batch in (64, 1024):
        x = torch.randn(batch, DIM)
        lines += table(
            f"Coupling flow, batch {batch}", flows, timed(flows, x, args.repeats, clock), "by hand"
        )
    glows = build({"normflows": normflows_glow, "zoo": our_glow})
    x = torch.rand(16, 3, 32, 32)
    for flow in glows.values():
        flow[1](x)  # data-dependent initialisation
    lines += table(
        "Glow 3x32x32, batch 16",
        glows,
        timed(glows, x, max(args.repeats // 3, 5), clock),
        "normflows",
    )
    print("\n".join(lines))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "flows.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
