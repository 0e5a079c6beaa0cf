"""60,000 colour photographs 32x32 in 10 classes (Krizhevsky 2009)."""

from zoo.data.images import TorchvisionImages
from zoo.registry import register


@register("cifar10", about="60,000 colour photographs 32x32 in 10 classes (Krizhevsky 2009)")
class CIFAR10(TorchvisionImages):
    __doc__ = TorchvisionImages.__doc__
    name, dataset, shape = "cifar10", "CIFAR10", (3, 32, 32)
    class_names = (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
