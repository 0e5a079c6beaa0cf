"""What a generative model has learned, put to another use: its features, and a classifier made of
them and a linear head.

Three modes share architecture, head, rows, batches and steps, so that their difference is that of
the weights they start from: "finetune" starts from the model's weights, "frozen" keeps them,
"scratch", the control, starts from new ones.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.batch import Batch
from zoo.core.draw import undisturbed
from zoo.core.module import GenerativeModule
from zoo.core.noise import mix, seeded

MODES = ("finetune", "frozen", "scratch")
RATES = {"finetune": 1e-3, "frozen": 1e-2, "scratch": 1e-3}  # of Adam
GRID = 4  # discriminators' maps are max-pooled to at most 4x4
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def features(model: GenerativeModule) -> Callable[[Tensor], Tensor]:
    """The function from examples in the units of the data, (B, *shape), to the model's features,
    (B, F).

    They are the (mean) code where the model encodes. Of other adversarial models they are all the
    discriminator's hidden layers, as in Radford et al. 2016, section 5.1: convolutional activations
    max-pooled to at most 4x4, activations of linear layers as they are.

    Raises:
        ValueError: the model has neither, or they depend on the label.
    """
    name, can = model.model_name, [] if model.entry is None else sorted(model.entry.can)
    if _encodes(model):
        _only_x(cast(Any, model).encode, f"{name}'s code")
    elif hasattr(model, "players"):
        d = _judge(model)
        if not isinstance(d, nn.Module):
            raise ValueError(
                f"{name} has no single discriminator to take features from; it can {', '.join(can)}"
            )
        _only_x(d.forward, f"{name}'s discriminator")
        _only_x(getattr(model, "scaled", model.spec.to_signed), f"{name}'s discriminator")
    else:
        raise ValueError(
            f"{name} has no features: it can neither encode nor has a discriminator; it can "
            f"{', '.join(can)}"
        )
    return functools.partial(_represent, model)


@torch.no_grad()
def extract(model: GenerativeModule, x: Tensor, rows: int = 512) -> Tensor:
    """``features(model)`` of many examples in evaluation mode, ``rows`` at a time, (N, F) on the
    CPU; leaves no trace in the model.
    """
    of = features(model)
    with undisturbed(model):
        return torch.cat(
            [of(part.to(model.device, model.float_dtype)).cpu() for part in x.split(rows)]
        )


def copied(model: GenerativeModule) -> GenerativeModule:
    """The same model with the same weights, sharing no storage with it and knowing nothing of its
    trainer.
    """
    made = fresh(model)
    made.load_state_dict(model.state_dict())
    return made


def fresh(
    model: GenerativeModule, seed: int = 0, batch: Batch | None = None, **changes: Any
) -> GenerativeModule:
    """The same architecture with new random weights, which depend on ``seed`` alone.

    Args:
        batch: training examples for models whose initialisation depends on the data; None leaves
            that out.
        changes: parameters that are to differ from the model's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(mix(seed, "fresh"))
        made = type(model)(model.spec, **{**model.params, **changes})
        made = made.to(model.device, model.float_dtype)
        if batch is not None:
            with torch.no_grad():
                made.initialise_from(batch.to(made.device, made.float_dtype))
    return made.eval()


class Classifier(LightningModule):
    """A copy of a model's features under a new linear head, trained by cross-entropy. The model
    given is left alone.

    Args:
        model: any model with ``features``. classes: number of labels.
        mode: "finetune" trains all weights that the features use; "frozen" only the head, on
            features in evaluation mode of which nothing moves, running statistics neither;
            "scratch" is "finetune" from new weights.
        lr: of Adam; None is 1e-3, and 1e-2 for "frozen".
        seed: of the head and of new weights. initial: training examples for "scratch", where
            initialisation depends on the data.
    """

    def __init__(
        self,
        model: GenerativeModule,
        classes: int,
        mode: str = "finetune",
        lr: float | None = None,
        seed: int = 0,
        initial: Batch | None = None,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode is one of {', '.join(MODES)}, got {mode!r}")
        if classes < 2:
            raise ValueError(f"a classifier has at least 2 classes, got {classes}")
        super().__init__()
        self.mode, self.classes = mode, classes
        self.lr = RATES[mode] if lr is None else lr
        self.body = fresh(model, seed, initial) if mode == "scratch" else copied(model)
        size, used = _used(self.body)
        if mode != "frozen" and not used:
            raise ValueError(
                f"{model.model_name}'s features pass no gradient to any weight, so they cannot be "
                f"trained; use mode=frozen"
            )
        for p in self.body.parameters():
            p.requires_grad_(mode != "frozen" and id(p) in used)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(mix(seed, "head"))
            self.head = nn.Linear(size, classes).to(model.device, model.float_dtype)

    def train(self, mode: bool = True) -> Classifier:
        super().train(mode)
        if self.mode == "frozen":
            self.body.eval()
        return self

    def represent(self, x: Tensor) -> Tensor:
        """Features, (B, F), of examples in the units of the data; without gradients where the model
        is frozen.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.mode != "frozen"):
            return features(self.body)(x.to(self.body.float_dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, classes)."""
        return self.head(self.represent(x))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch["x"]), batch["y"])
        self.log("train/loss", loss, batch_size=len(batch["x"]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        right = (self(batch["x"]).argmax(1) == batch["y"]).double().mean()
        self.log("val/accuracy", right.float(), batch_size=len(batch["x"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], self.lr)

    @torch.no_grad()
    def accuracy(self, x: Tensor, y: Tensor, rows: int = 512) -> float:
        """Share of right labels, in evaluation mode."""
        with undisturbed(self):
            device = self.head.weight.device
            found = torch.cat([self(part.to(device)).argmax(1).cpu() for part in x.split(rows)])
        return (found == y.cpu()).double().mean().item()


def fit_classifier(
    model: GenerativeModule,
    x: Tensor,
    y: Tensor,
    classes: int,
    mode: str = "finetune",
    *,
    steps: int = 300,
    batch_size: int = 64,
    lr: float | None = None,
    seed: int = 0,
    initial: Batch | None = None,
) -> Classifier:
    """A classifier trained on labelled examples for a number of steps, without a trainer; in
    evaluation mode.

    The rows of each step depend on (seed, step) and the number of examples alone: every mode sees
    the same ones. A pass over the data is a new permutation, its last rows dropped where they do
    not fill a minibatch.

    Args:
        x: (N, *shape) in the units of the data. y: labels, (N,). steps, batch_size: minibatches, of
            at most N rows.
    """
    if steps < 1 or batch_size < 1 or len(x) != len(y) or not len(x):
        raise ValueError(
            f"steps and batch_size are at least 1, and labels one an example: got {steps}, "
            f"{batch_size}, {len(x)} and {len(y)}"
        )
    classifier = Classifier(model, classes, mode, lr, seed, initial)
    device = classifier.head.weight.device
    x, y = x.to(device), y.to(device)
    size = min(batch_size, len(x))
    per_pass = len(x) // size
    optimiser: Any = classifier.configure_optimizers()
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
        torch.manual_seed(mix(seed, "dropout"))
        classifier.train()
        frozen = (
            torch.cat([classifier.represent(part) for part in x.split(512)])
            if mode == "frozen"
            else None
        )  # once for all steps
        for step in range(steps):
            if step % per_pass == 0:
                order = torch.randperm(len(x), generator=seeded(seed, "rows", step // per_pass)).to(
                    device
                )
            rows = order[step % per_pass * size :][:size]
            optimiser.zero_grad(set_to_none=True)
            logits = classifier(x[rows]) if frozen is None else classifier.head(frozen[rows])
            F.cross_entropy(logits, y[rows]).backward()
            optimiser.step()
    return classifier.eval()


def _encodes(model: GenerativeModule) -> bool:
    return hasattr(model, "encode") if model.entry is None else "encode" in model.entry.can


def _judge(model: Any) -> Any:
    """The discriminator's network, where there is one."""
    d = model.players().get("d")
    return getattr(d, "net", d)


def _only_x(function: Callable[..., Any], what: str) -> None:
    taken = [*inspect.signature(function).parameters.values()][1:]
    needed = [
        p.name
        for p in taken
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if needed:
        raise ValueError(
            f"{what} needs {', '.join(needed)} beside the example, so it is no feature of the "
            f"example alone"
        )


def _represent(model: GenerativeModule, x: Tensor) -> Tensor:
    if _encodes(model):
        code = cast(Any, model).encode(x)
        parts = code if isinstance(code, (tuple, list)) else [code]
        return torch.cat([h.flatten(1).to(model.float_dtype) for h in parts], 1)
    view = getattr(model, "scaled", model.spec.to_signed)  # what D sees of an example
    return torch.cat([_pooled(h) for h in _hidden(cast(Any, _judge(model)), view(x))], 1)


def _hidden(d: nn.Module, x: Tensor) -> list[Tensor]:
    """The hidden layers' outputs, shallow first, in one pass: each convolution or linear layer with
    the norm and activation *modules* that follow it (what a forward method computes between modules
    is not seen). The last layer is D's verdict and left out."""
    outputs: list[Tensor] = []

    def note(module: nn.Module, _: Any, out: Any) -> None:
        if isinstance(module, LAYERS):
            outputs.append(out)
        elif outputs and isinstance(out, Tensor) and out.shape == outputs[-1].shape:
            outputs[-1] = out

    # A parametrised layer has children.
    leaves = [m for m in d.modules() if not [*m.children()] or isinstance(m, LAYERS)]
    hooks = [
        m.register_forward_hook(note)
        for m in leaves
        if type(m).__module__ != "torch.nn.utils.parametrizations"
    ]
    try:
        d(x)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs[:-1]


def _pooled(h: Tensor) -> Tensor:
    if h.ndim == 4:
        h = F.adaptive_max_pool2d(h, (min(GRID, h.shape[2]), min(GRID, h.shape[3])))
    return h.flatten(1)


def _used(model: GenerativeModule) -> tuple[int, set[int]]:
    """The number of features, and the ids of the weights they depend on."""
    shape, levels = (2, *model.spec.shape), model.spec.levels or 2
    g = torch.Generator().manual_seed(0)
    x = torch.randint(levels, shape, generator=g).to(model.device, model.float_dtype)
    weights = [p for p in model.parameters() if p.requires_grad]
    with torch.enable_grad():
        h = features(model)(x)
        if not h.requires_grad or not weights:
            return h.shape[1], set()
        found = torch.autograd.grad(h.sum(), weights, allow_unused=True)
    return h.shape[1], {id(p) for p, g in zip(weights, found, strict=True) if g is not None}
