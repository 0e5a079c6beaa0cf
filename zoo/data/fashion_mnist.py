"""70,000 pictures of clothes 28x28, 8-bit grey (Xiao, Rasul, Vollgraf 2017)."""

from zoo.data.images import TorchvisionImages
from zoo.registry import register


@register(
    "fashion_mnist",
    about="70,000 pictures of clothes 28x28, 8-bit grey (Xiao, Rasul, Vollgraf 2017)",
)
class FashionMNIST(TorchvisionImages):
    __doc__ = TorchvisionImages.__doc__
    name, dataset, shape = "fashion_mnist", "FashionMNIST", (1, 28, 28)
    class_names = (
        *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    )
