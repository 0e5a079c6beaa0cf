"""Kept while tests move to ``zoo.harness``."""

from zoo.harness import *  # noqa: F403
