"""Optimiser and learning rate: how the weights follow the gradients.

The learning rate of a setting is for updates made of one batch. Where `devices × nodes × accumulate` batches make an
update, its gradient is less noisy and it may be larger: `linear` in their number for SGD (Goyal et al., arXiv
1706.02677), `sqrt` for Adam, whose steps do not grow with the gradient (Malladi et al., arXiv 2205.10287).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from crnn.config import OptimiserConfig


def growth(settings: OptimiserConfig, batches: int) -> float:
    """What the learning rate is multiplied by when so many batches make one update."""
    rule = settings.batch_rule
    if rule == "auto":
        rule = "linear" if settings.name == "sgd" else "sqrt"
    return {"linear": float(batches), "sqrt": math.sqrt(batches), "none": 1.0}[rule]


def make_optimiser(model: nn.Module, settings: OptimiserConfig, batches: int, fused: bool) -> torch.optim.Optimizer:
    """For the parameters that are trained; `batches` make one update."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        # Norms and biases are few and must stay free.
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    rate = settings.learning_rate * growth(settings, batches)
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, nesterov=False, fused=fused)
    return torch.optim.AdamW(groups, lr=rate, fused=fused)


def schedule(settings: OptimiserConfig, steps: int) -> Callable[[int], float]:
    """Step → part of the learning rate."""
    onecycle = settings.schedule == "onecycle"  # a long climb, then down (Smith and Topin, arXiv 1708.07120)
    warmup = max(1, int(0.3 * steps)) if onecycle else min(settings.warmup, max(1, steps // 10))

    def scale(step: int) -> float:
        if step < warmup:
            climbed = (step + 1) / warmup
            return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * climbed)) if onecycle else climbed
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        match settings.schedule:
            case "constant":
                return 1.0
            case "exponential":
                return settings.final**done
            case _:
                return settings.final + (1 - settings.final) * 0.5 * (1 + math.cos(math.pi * done))

    return scale
