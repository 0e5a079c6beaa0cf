"""The contract that every model keeps, as plain functions chosen by kind of model and of data.

``python -m zoo.check NAME`` runs them, also on a class from outside the zoo; every check runs on
the model's own fields, so it holds for a kind of data that did not exist when it was written.
"""

from zoo.check import densities, everyone, games, gates, processes
from zoo.check.checks import CHECKS, check
from zoo.check.run import applicable, main, run_check, waivers
from zoo.check.subject import Given, Subject, fit

__all__ = [
    "CHECKS",
    "Given",
    "Subject",
    "applicable",
    "check",
    "densities",
    "everyone",
    "fit",
    "games",
    "gates",
    "main",
    "processes",
    "run_check",
    "waivers",
]
