"""Pictures of what a generator does with parts of its code show what their labels say."""

import pytest
import torch

from tests.show.support import pixels_of
from zoo.core import DataSpec
from zoo.gan.lapgan import LAPGAN
from zoo.gan.stylegan import StyleGAN
from zoo.show import styles
