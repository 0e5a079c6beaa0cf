"""CycleGAN: two domains without pairs, and the way there and back must end where it began.

Paper      Zhu, Park, Isola, Efros. Unpaired image-to-image translation using cycle-consistent
           adversarial networks. ICCV 2017. arXiv:1703.10593.
Model      G: A -> B and F: B -> A, residual translators; D_B and D_A judge patches of their domain.
Objective  with least squares, means over rows and patches:
           G, F:  E (D_B(G(a)) - 1)² + E (D_A(F(b)) - 1)²
                  + λ_A E |F(G(a)) - a| + λ_B E |G(F(b)) - b|
                  + λ_id (λ_B E |G(b) - b| + λ_A E |F(a) - a|);
           D_B:   ½ (E (D_B(b) - 1)² + E D_B(G(a)')²), G(a)' from the pool, without gradient;
           D_A:   the same of a and F(b)'.
           Distances are means over pixels in [-1, 1]; λ_A = λ_B = 10.
Training   G and F move first, by one Adam, then both D by another, with the images of that step
           handed through a pool of 50 for each domain. With ``decay_end`` all rates fall linearly.
Logs       train/cycle_a, cycle_b, same_a, same_b (the identity's), loss_b, loss_a (D's part of
           either domain). val/cycle_a, cycle_b and, where what belongs to an a is known, back_l1
           of F, on [0, 1]; val/psnr and the like of G(a).
Sampling   G(a) or F(b), without noise.
Notes      λ_id = .5 is the authors' code's; the paper's main results have 0. It takes two domains
           of one shape. Instance norm is without gain and running statistics, and convolutions
           before it without biases. D's least squares carry the code's ½. The pool is that of the
           whole batch over all processes.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.bases import Adversary, DomainsModule, LoopOptions, Loss, Phase, Terms
from zoo.bases.image_pool import ImagePool
from zoo.bases.translation import OTHER
from zoo.core import Batch, Spec
from zoo.core.options import Count, Decay, NonNegative, Positive, Whole
from zoo.nn.patches import PatchDiscriminator, check_patches
from zoo.nn.residual import ResidualTranslator
from zoo.nn.small import initialise
from zoo.registry import Paper, register

# ½ (s - 1)², ½ s², (s - 1)², of D's outputs s.
GAME = Loss(
    real=lambda s: (s - 1).square() / 2,
    fake=lambda s: s.square() / 2,
    maker=lambda s: (s - 1).square(),
)
SHOWN = ("real_a", "real_b", "made_a", "made_b")  # to both D


def distance(p: Tensor, q: Tensor) -> Tensor:
    """E |p - q|, a mean over rows and pixels."""
    return (p - q).abs().mean()


@register(
    "cyclegan",
    paper=Paper(
        "Zhu, Park, Isola, Efros",
        "Unpaired image-to-image translation using cycle-consistent adversarial networks",
        2017,
        "1703.10593",
    ),
    about="two domains without pairs: there and back again is where one was",
    taxonomy="implicit direct",
    likelihood="none",
    can={"sample", "translate"},
    told=("a",),
    makes=("b",),
    data="unpaired",
    learns=(("val/class_kept", ">", 0.8), ("val/l1", "<", 0.2), ("val/cycle_a", "<", 0.055)),
    waive={"seed_matters": "what becomes of an image is a function of it"},
)
class CycleGAN(DomainsModule):
    """See the module's docstring.

    Args:
        spec: two fields of images, a and b; height and width multiples of 4, at least 8.
        width: filters of the first layer of the generators and the discriminators. blocks: residual
            ones of a generator. layers: of stride 2 in a discriminator: a patch is 16, 34 or 70
            pixels for 1, 2 or 3.
        lam_a, lam_b: λ_A, λ_B. lam_id: λ_id; 0 where the domains are of different shapes.
        pool: images of the pool of each domain; 0 is none.
        decay_start, decay_end: steps between which all rates fall linearly; 0, 0 is never.
        lr_d: learning rate of both D. lr_g: of G and F. beta1: Adam's first decay. loop: options of
            the adversarial loop.
    """

    watches = ("cycle_a", "cycle_b")
    grain = 4

    def __init__(
        self,
        spec: Spec,
        width: Count = 16,
        blocks: Count = 3,
        layers: Count = 1,
        lam_a: NonNegative = 10.0,
        lam_b: NonNegative = 10.0,
        lam_id: NonNegative = 0.5,
        pool: Whole = 50,
        decay_start: Whole = 0,
        decay_end: Whole = 0,
        lr_d: Positive = 2e-4,
        lr_g: Positive = 2e-4,
        beta1: Decay = 0.5,
        loop: LoopOptions = LoopOptions(),
    ) -> None:
        super().__init__(spec, loop)
        if lam_id and spec["a"].shape != spec["b"].shape:
            raise ValueError(
                f"cyclegan: an image of one domain is none of the other, got {spec}; set "
                "model.lam_id=0"
            )
        shapes = {name: spec[name].shape for name in "ab"}
        for _, height, breadth in shapes.values():
            if height % self.grain or breadth % self.grain or min(height, breadth) < 8:
                raise ValueError(
                    "cyclegan: the sides of images are multiples of 4, at least 8, got "
                    f"{height}x{breadth}; set --data.size to one"
                )
            check_patches("cyclegan", height, breadth, layers)
        self.lam_a, self.lam_b, self.lam_id = lam_a, lam_b, lam_id
        self.decay_start, self.decay_end = decay_start, decay_end
        self.lr_d, self.lr_g, self.betas = lr_d, lr_g, (beta1, 0.999)

        without = {"replay": "it has a pool of its own (model.pool)"}
        self.g, self.d = nn.ModuleDict(), nn.ModuleDict()
        for name, shape in shapes.items():
            source = shapes[OTHER[name]]
            g = ResidualTranslator(source[0], shape[0], width, blocks)
            net = PatchDiscriminator(shape[0], width, layers, nn.InstanceNorm2d)
            d = Adversary(
                self,
                initialise(net, biases=True),
                GAME,
                inputs=[shape],
                without=without,
            )
            d.pool = ImagePool(pool, [shape]) if pool else None
            self.g[name], self.d[name] = initialise(g, biases=True), d

    # -- losses -----------------------------------------------------------------------------------
    def generator_loss(self, batch: Batch) -> Terms:
        a, b = self.both(batch)
        made_b, made_a = self.made("b", a), self.made("a", b)
        terms: Terms = {
            "cycle_a": distance(self.made("a", made_b), a),
            "cycle_b": distance(self.made("b", made_a), b),
        }
        fooled = self.d["b"].fool(made_b) + self.d["a"].fool(made_a)
        loss = fooled + self.lam_a * terms["cycle_a"] + self.lam_b * terms["cycle_b"]
        if self.lam_id:
            terms |= {
                "same_b": distance(self.made("b", b), b),
                "same_a": distance(self.made("a", a), a),
            }
            same = self.lam_b * terms["same_b"] + self.lam_a * terms["same_a"]
            loss = loss + self.lam_id * same
        shown = dict(zip(SHOWN, (a, b, made_a, made_b), strict=True))
        return {**terms, "loss": loss, **shown}

    def discriminator_loss(self, batch: Batch) -> Terms:
        terms: Terms = {}
        for name, d in self.d.items():
            for key, value in d.loss((batch[f"real_{name}"],), (batch[f"made_{name}"],)).items():
                terms[f"{key}_{name}"] = value
        return {**terms, "loss": terms["loss_a"] + terms["loss_b"]}

    # -- the game ---------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return [
            Phase("g", self.generator_loss, ("a", "b"), makes=SHOWN),
            Phase("d", self.discriminator_loss, SHOWN, critic=True),
        ]
