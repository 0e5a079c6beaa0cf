"""Networks compiled in place by ``torch.compile``: names, checkpoints and weights stay as they
are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def compile_nets(model: Any) -> int:
    """Compile a model's networks, each as one graph that is made at its first pass: the players' of
    a game, the model's own parts otherwise. Returns how many.

    Raises:
        ValueError: a penalty of this model differentiates twice, which compiled networks cannot; or
            there is no C++ compiler for those on a CPU.
    """
    if model.differentiates_twice:
        raise ValueError(
            f"--compile=true: {model.model_name} pays for the gradient of its discriminator, whose "
            "own gradient compiled networks do not have; leave --compile out, or the penalty "
            "(--model.loop.r1)"
        )
    if not torch.cuda.is_available():
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            raise ValueError(
                "--compile=true needs a C++ compiler on a CPU, and none is found; install g++, or "
                "leave --compile out"
            ) from None
    found = {id(net): net for net in nets(model)}
    for net in found.values():
        net.compile()
    return len(found)


def nets(module: Any) -> Iterator[nn.Module]:
    """The outermost parts that are called: what has no pass of its own is seen through, and so is
    an adversary.
    """
    for child in module.children():
        if type(child).forward is nn.Module.forward or hasattr(child, "game"):
            yield from nets(child)
        elif any(True for _ in child.parameters()):
            yield child
