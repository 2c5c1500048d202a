"""Out of memory: which batch fits, found by trying."""

from __future__ import annotations

import torch

from crnn.learner import Learner


def is_full(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of a GPU or of the machine."""
    text = str(error)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        said in text for said in ("out of memory", "can't allocate memory", "could not create a memory object")
    )


def advice(learner: Learner) -> str:
    """What to do about it: halves of the batch that did not fit are tried, on weights that are given up anyway."""
    config, batch = learner.config, learner.last
    if batch is None:
        return "the memory is full before the first step: use a smaller model, or a machine with more of it"
    count, width = len(batch), batch.images.shape[3]
    fitting = count // 2
    while fitting and not _fits(learner, (fitting, *batch.images.shape[1:])):
        fitting //= 2
    what = f"out of memory at step {learner.global_step} with {count} crops {width} pixels wide"
    if not fitting:
        return f"{what}, and one does not fit either: use a smaller model, or a machine with more memory"
    smaller = max(1, config.batch * fitting // count)
    times = -(-config.batch // smaller) * config.accumulate
    return (
        f"{what}; {fitting} fit: start again with --set batch={smaller} --set accumulate={times}, which makes updates "
        "of as many crops"
    )


def _fits(learner: Learner, shape: tuple[int, ...]) -> bool:
    try:
        learner.zero_grad(set_to_none=True)
        learner(torch.zeros(shape, device=learner.device)).float().sum().backward()
    except (RuntimeError, MemoryError) as error:
        if is_full(error):
            return False
        raise
    finally:
        learner.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return True
