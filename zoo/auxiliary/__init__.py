"""Networks that are no models: what models look through, and what judges theirs. They are trained
once, on embedded data, and kept.
"""

from zoo.auxiliary.nets import NETS, net
from zoo.auxiliary.own import recogniser
from zoo.auxiliary.recipe import Recipe

__all__ = ["NETS", "Recipe", "net", "recogniser"]
