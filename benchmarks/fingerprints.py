"""Fingerprints of every model: weights after a few steps, samples of a seed, likelihoods, logged
values, to the last bit.

    python benchmarks/fingerprints.py run OUT.json [MODEL ...]     with the checkout that PYTHONPATH
    names
    python benchmarks/fingerprints.py compare OLD.json NEW.json    lists every difference; status 1
    if there is one

Run it on two commits and compare. Tensors are compared by shape and content, whatever their names
are, so that renaming a network is no difference. Steps are counted by the generator; every option
of the loop that a model takes is a variant of its own.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
import warnings
from typing import Any

import torch

STEPS = 3
LOOP = {
    "label_smooth": 0.9,
    "label_flip": 0.3,
    "instance_noise": 0.5,
    "spectral_norm": "true",
    "r1": 1.0,
    "replay": 16,
    "separate_batches": "false",
}
GAME = ("--model.loop.accumulate=2", "--model.loop.clip_d=0.1 --model.loop.clip_g=0.1")
DIGITS = "--data=digits"
VARIANTS = {
    "gan": (
        f"{DIGITS} --model.arch=maxout --model.width=40",
        "--model.optimiser=sgd",
        "--model.g_loss=minimax --model.k=2",
        DIGITS,
    ),
    "dcgan": ("--model.g_loss=minimax --model.k=2", "--model.prior=sphere --model.kernel=5"),
    "wgan": (f"{DIGITS} --model.norm=batch --model.init=dcgan",),
    "wgan_gp": (f"{DIGITS} --model.norm=layer --model.decay_steps=10",),
    "lsgan": ("--model.a=-1 --model.c=0",),
    "geometric_gan": ("--model.g_loss=leaky --model.optimiser=rmsprop", "--model.c=null"),
    "cgan": (
        "--model.arch=conv",
        "--model.mismatch=true --model.dropout=0.2",
        "--model.optimiser=sgd",
    ),
    "acgan": ("--model.dropout=0.3 --model.g_loss=minimax", "--data.size=32 --model.arch=paper"),
    "am_gan": ("--model.mode=predefined", "--model.mode=label_gan"),
    "began": ("--model.arch=conv --model.width=8 --model.vanishing_residual=5", "--model.k=2"),
    "ebgan": ("--model.error=l2 --model.margin=10 --model.margin_steps=5", "--model.pt=0"),
    "f_gan": (
        "--model.simultaneous=false --model.divergence=kl",
        "--model.divergence=neyman",
        "--model.g_loss=minimax --model.divergence=alpha",
        f"{DIGITS} --model.arch=paper --model.width=50",
    ),
    "gogan": (
        "--model.stage_steps=1 --model.stages=3",
        "--model.stage_steps=1 --model.rank_scorer=old",
    ),
    "adagan": (
        "--model.stage_steps=1 --model.mix_steps=5",
        "--model.stage_steps=2 --model.mix_steps=5 --model.loop.r1=1 --model.rule=topk",
    ),
    "b_gan": (
        "--model.f=pearson --model.g_loss=dual --model.alpha=0.3",
        "--model.f=kl --model.r_max=4",
    ),
    "bs_gan": (
        "--data.binarize=none --model.mode=multinomial --model.samples=5",
        "--data.binarize=none --model.mode=continuous --model.log_z=true",
        "--model.g_loss=reinforce --model.log_z=true --model.arch=conv --model.optimiser=rmsprop",
    ),
    "catgan": (
        "--model.mode=semi --model.labels=100",
        "--model.arch=conv --model.cross_rank=local",
    ),
    "improved_gan": (
        "--model.kernels=5",
        "--model.g_loss=nonsat --model.history_d=0.1 --model.history_g=0.1",
        "--model.norm_g=virtual --model.fm_norm=l2 --model.noise=0.1 --model.decay_end=10",
        "--data.size=16 --model.arch=paper --model.width_d=12",
    ),
    "infogan": ("--model.fixed_std=true --model.noise=0", "--model.arch=paper --model.width=8"),
    "aae": (
        "--model.mode=label_reg --model.prior=mixture --model.latent=2",
        "--model.mode=sup --model.q=gaussian",
        "--model.mode=semi --model.labels=100 --model.q=noise",
        "--model.mode=cluster --model.recon=bce --model.optimiser=sgd",
    ),
    "vaegan": ("--model.margin=0.35 --model.g_loss=minimax", "--model.optimiser=rmsprop"),
    "cvae_gan": ("--model.norm=batch",),
    "factor_vae": ("--model.net=conv --model.width=8",),
    "fvsbn": ("--model.conditional=true",),
    "made": ("--model.conditional=true",),
    "pixelcnn": ("--model.conditional=true",),
    "pixelcnn_pp": ("--model.conditional=true",),
    "pixelrnn": ("--model.conditional=true",),
    "glow": ("--model.conditional=true", "--model.classifier_weight=0.1"),
}


def digest(tensor: torch.Tensor) -> str:
    value = tensor.detach().cpu().contiguous()
    text = f"{tuple(value.shape)} {value.dtype} "
    return hashlib.sha256(text.encode() + value.numpy().tobytes()).hexdigest()[:16]


def tensors(tree: Any) -> list[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return [tree]
    values = (
        tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (list, tuple)) else ()
    )
    return [t for v in values for t in tensors(v)]


def told(model: Any, n: int) -> dict[str, torch.Tensor]:
    """Classes in turn for a model that is told the class, in the words of either commit."""
    words = getattr(model, "told", ())  # of one commit a method by that name, of another the fields
    asks = (not callable(words) and "y" in words) or getattr(model, "conditions_on", "") == "class"
    return {"y": torch.arange(n) % model.spec.num_classes} if asks else {}


def rows_of(model: Any, n: int) -> torch.Tensor:
    try:
        from zoo.core.draw import draw

        return draw(model, n, 1, told=told(model, n))
    except ImportError:
        from zoo.core.draw import draw

        return draw(model, n, 1, **told(model, n))


def values_of(model: Any, batch: Any, generator: Any) -> dict[str, str]:
    """What its methods say of eight examples; a method that takes a label is given it if the model
    is told one.
    """
    x, found = batch["x"], {}
    labels = {"y": batch["y"]} if told(model, 1) else {}
    for name in ("log_prob", "elbo", "encode", "reconstruct", "classify"):
        method = getattr(model, name, None)
        if method is None or name not in model.entry.can:
            continue
        taken = inspect.signature(method).parameters
        options = (
            labels if "y" in taken or any(p.kind is p.VAR_KEYWORD for p in taken.values()) else {}
        )
        if "generator" in taken:
            options = {**options, "generator": generator(1)}
        torch.manual_seed(5)
        found[name] = " ".join(map(digest, tensors(method(x, **options))))
    torch.manual_seed(5)
    found |= {f"val {k}": digest(v) for k, v in model.evaluate(batch, generator(2)).items()}
    return found


def fingerprint(name: str, *options: str) -> dict[str, Any]:
    """Of a model with its default data after ``STEPS`` generator steps from seed 0."""
    from zoo.check import Subject

    def generator(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    data = [o for o in options if o.startswith("--data=")]
    rest = [o for o in options if not o.startswith("--data=")]
    subject = Subject.of(name, *(word for o in data for word in o.split("=")), *rest)
    model = subject.model()
    start = sorted(digest(p) for p in model.parameters())
    subject.fit(model, STEPS)
    found: dict[str, Any] = {
        "start": start,
        "weights": sorted(digest(p) for p in model.parameters()),
        "buffers": sorted(digest(b) for n, b in model.named_buffers()),
        "terms": {k: repr(float(v)) for k, v in model.terms.items()},
    }
    model.eval()
    if "sample" in model.entry.can:
        found["samples"] = digest(rows_of(model, 70))
    with torch.no_grad():
        found["values"] = values_of(model, subject.batch(8), generator)
    return found


def cases(names: list[str]) -> list[str]:
    from zoo import registry

    out = []
    for name in names or registry.list():
        out.append(name)
        out += [f"{name} {o}" for o in VARIANTS.get(name, ())]
        if "loop" in registry.entry(name).parameters:
            out += [f"{name} {o}" for o in GAME]
            out += [f"{name} --model.loop.{k}={v}" for k, v in LOOP.items()]
            out += [
                f"{name} --model.loop.label_smooth=0.9 --model.loop.instance_noise=0.5"
                " --model.loop.replay=16 --model.loop.label_flip=0.2"
            ]
    return out


def run(path: str, names: list[str]) -> None:
    warnings.filterwarnings("ignore")
    import logging

    for source in (
        "lightning.pytorch",
        "lightning.fabric",
        "lightning.pytorch.utilities.rank_zero",
    ):
        logging.getLogger(source).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for case in cases(names):
        try:
            results[case] = fingerprint(*case.split())
        # an option that the model refuses, or a case that one commit cannot do
        except Exception as error:
            results[case] = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(case, results[case].get("error", "")[:90], flush=True)
    with open(path, "w") as file:
        json.dump(results, file, indent=1)


def compare(old: str, new: str) -> int:
    with open(old) as a, open(new) as b:
        was, now = json.load(a), json.load(b)
    moved = served = equal = 0
    for case in now:
        if case not in was:
            print(f"only in the new one: {case}")
            continue
        x, y = was[case], now[case]
        if "error" in x or "error" in y:
            if "error" in x and "error" in y:
                equal += 1
            elif "error" in x:
                served += 1
                print(f"served now: {case}")
            else:
                moved += 1
                print(f"FAILS NOW: {case}: {y['error']}")
            continue
        apart = [k for k in x if k not in ("terms", "values") and x[k] != y.get(k)]
        for part in ("terms", "values"):
            apart += [
                f"{part}.{k}" for k in {**x[part], **y[part]} if x[part].get(k) != y[part].get(k)
            ]
        moved += bool(apart)
        equal += not apart
        if apart:
            print(f"MOVED: {case}: {', '.join(apart)}")
    print(f"{equal} equal, {moved} moved, {served} served now that were refused before")
    return int(moved > 0)


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(compare(*sys.argv[2:4]))
