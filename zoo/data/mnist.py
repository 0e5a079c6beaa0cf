"""70,000 handwritten digits 28x28, 8-bit grey (LeCun, Cortes, Burges)."""

from zoo.data.images import TorchvisionImages
from zoo.registry import register


@register("mnist", about="70,000 handwritten digits 28x28, 8-bit grey (LeCun, Cortes, Burges)")
class MNIST(TorchvisionImages):
    __doc__ = TorchvisionImages.__doc__
    name, dataset, shape = "mnist", "MNIST", (1, 28, 28)
