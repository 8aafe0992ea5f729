"""Learning-rate schedules as pure functions of progress, the share of the run that is done when a step ends.

Progress rather than a step number is the argument, so that one schedule serves a fixed number of steps and a run whose
length is fitted to a budget. The first update moves and the last one stands on the floor, as with `cosine_with_min_lr`
in transformers 5.23; the other schedules of transformers stand one step earlier (first update at rate 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from open_rs.config.schema import OptimizerConfig
from open_rs.config.validate import nearest
from open_rs.types import UserError

Shape = Callable[[float, float], float]  # (share of the decay that is done, min_lr_rate) -> multiple of the peak


def build_schedule(optimizer: OptimizerConfig) -> Callable[[float], float]:
    """A function from progress in (0, 1] to the learning rate. Raises UserError for an unknown schedule.

    `build_schedule(OptimizerConfig(learning_rate=1.0, warmup_ratio=0.1))(0.05) == 0.5`
    """
    name = optimizer.lr_scheduler_type
    if name not in SCHEDULES:
        known = ", ".join(SCHEDULES)
        raise UserError(
            f"optimizer.lr_scheduler_type: `{name}` is no schedule{nearest(name, list(SCHEDULES))}. Known: {known}"
        )
    shape, warms_up = SCHEDULES[name]
    warmup = optimizer.warmup_ratio if warms_up else 0.0
    return lambda progress: optimizer.learning_rate * _factor(shape, progress, warmup, optimizer.min_lr_rate)


def _factor(shape: Shape, progress: float, warmup: float, min_lr_rate: float) -> float:
    if progress < warmup:
        return progress / warmup
    decayed = 1.0 if warmup >= 1.0 else (progress - warmup) / (1.0 - warmup)
    return shape(min(decayed, 1.0), min_lr_rate)


def _cosine_with_min_lr(decayed: float, min_lr_rate: float) -> float:
    return min_lr_rate + (1.0 - min_lr_rate) * 0.5 * (1.0 + math.cos(math.pi * decayed))


def _cosine(decayed: float, min_lr_rate: float) -> float:
    return _cosine_with_min_lr(decayed, 0.0)


def _linear(decayed: float, min_lr_rate: float) -> float:
    return 1.0 - decayed


def _constant(decayed: float, min_lr_rate: float) -> float:
    return 1.0


SCHEDULES: dict[str, tuple[Shape, bool]] = {  # name: (shape after warm-up, whether it warms up)
    "cosine_with_min_lr": (_cosine_with_min_lr, True),
    "cosine": (_cosine, True),
    "linear": (_linear, True),
    "constant": (_constant, False),
    "constant_with_warmup": (_constant, True),
}
