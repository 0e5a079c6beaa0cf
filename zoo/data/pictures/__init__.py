"""Where images are stored and how one of them becomes levels: ``open_source`` finds what a folder,
archive, array file or table holds, ``decode`` turns one stored image into a tensor.
"""

from zoo.data.pictures.decode import TooLarge, decode
from zoo.data.pictures.find import open_source
from zoo.data.pictures.source import Item, Source

__all__ = ["Item", "Source", "TooLarge", "decode", "open_source"]
