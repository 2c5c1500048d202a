"""Many GPUs and machines: who takes part in a run, starting the processes of one machine, sums over all of them.

A run's processes are started by `launch`, by torchrun, by Slurm or by anything else that sets torchrun's variables
(Kubeflow's PyTorchJob, Ray Train). Lightning's DDP averages their gradients.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import signal
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from torch import Tensor, nn

from crnn.config import TrainConfig
from crnn.errors import ConfigError, CrnnError
from crnn.model import CRNN

CHECKPOINT = "last.ckpt"
LAUNCHED = "CRNN_LAUNCHED"  # set in processes that `launch` started


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run: rank 0..world-1, of which `local` are on this machine."""

    rank: int = 0
    world: int = 1
    local: int = 1

    @property
    def nodes(self) -> int:
        return max(1, self.world // self.local)

    def environment(self) -> ClusterEnvironment:
        if self.world == 1:
            return LightningEnvironment()
        return TorchElasticEnvironment() if "WORLD_SIZE" in os.environ else SLURMEnvironment(auto_requeue=False)


def find_ranks() -> Ranks:
    """From the variables of torchrun and its like, or of Slurm's srun; alone without them. ConfigError if they do not
    fit together."""
    env = os.environ
    try:
        if int(env.get("WORLD_SIZE", 1)) > 1 and "RANK" in env:
            world = int(env["WORLD_SIZE"])
            env.setdefault("LOCAL_RANK", "0")  # where each pod holds one process, some leave it out
            return Ranks(int(env["RANK"]), world, int(env.get("LOCAL_WORLD_SIZE", 1)))
        if int(env.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in env and "SLURM_STEP_ID" in env:
            world, nodes = int(env["SLURM_NTASKS"]), int(env.get("SLURM_STEP_NUM_NODES", env.get("SLURM_NNODES", 1)))
            return Ranks(int(env["SLURM_PROCID"]), world, world // nodes)
    except ValueError as error:
        raise ConfigError(f"WORLD_SIZE, RANK, SLURM_NTASKS and the like must be whole numbers ({error})") from None
    return Ranks()


def count_devices(wanted: int) -> int:
    """Processes for this machine. ConfigError when there are fewer GPUs."""
    gpus = torch.cuda.device_count()
    if gpus and wanted > gpus:
        raise ConfigError(f"devices = {wanted} needs as many GPUs, and this machine has {gpus}")
    return wanted or max(1, gpus)


# ---- starting --------------------------------------------------------------------------------------------------------


def launch(config: TrainConfig, resume: bool, rendezvous: str = "") -> None:
    """Runs `crnn train` in config.devices processes on this machine until all are done.

    `rendezvous` is HOST:PORT of the first machine where there are several. One log: rank 0 speaks, the others write
    into the run's folder. CrnnError says which process ended how; Ctrl-C and SIGTERM are handed on, and raise
    KeyboardInterrupt when all have stopped.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if config.nodes > 1 and not rendezvous:
        raise ConfigError("nodes above 1 need --rendezvous HOST:PORT: a port of the first machine that all can reach")
    folder = Path(config.output)
    spoken = folder / "processes"
    spoken.mkdir(parents=True, exist_ok=True)
    for name in ("agent.server.api", "multiprocessing.api", "multiprocessing.errors"):  # what matters is said below
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.CRITICAL)
    settings = LaunchConfig(
        min_nodes=config.nodes,
        max_nodes=config.nodes,
        nproc_per_node=config.devices,
        run_id=folder.name if rendezvous else uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=rendezvous or "localhost:0",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(str(spoken), redirects=dict.fromkeys(range(1, config.devices), Std.ALL)),
        local_addr=None if rendezvous else "localhost",
        shutdown_timeout=60,
    )
    arguments = ["--resume", "--output", str(folder)] if resume else ["--config", str(folder / "config.toml")]
    # Each process takes its part of the cores, not all of them.
    own = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // config.devices)), LAUNCHED: str(os.getpid())}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update({LAUNCHED: own[LAUNCHED]} | ({} if before["OMP_NUM_THREADS"] else own))
    try:
        elastic_launch(settings, sys.executable)("-m", "crnn", "train", *arguments)
    except SignalException:
        raise KeyboardInterrupt from None
    except ChildFailedError as failed:
        raise _explain(failed, folder, config.devices * config.nodes) from None
    else:
        shutil.rmtree(spoken, ignore_errors=True)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _explain(failed: Any, folder: Path, world: int) -> BaseException:
    """One sentence on the process that was the first to fail."""
    failures = sorted(  # SIGTERM is what the others get when one has failed
        failed.failures.items(),
        key=lambda item: (item[1].exitcode == -signal.SIGTERM, item[1].exitcode >= 0, item[1].timestamp, item[0]),
    )
    rank, failure = failures[0]
    status = failure.exitcode
    again = go_on(folder)
    if status < 0:
        name = signal.Signals(-status).name
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return CrnnError(f"process {rank} of {world} was killed ({name}{hint}) and the run has stopped; {again}")
    if any(each.exitcode == 130 for _, each in failures):
        return KeyboardInterrupt()
    if rank:
        said = _last_words(folder / "processes", rank)
        return CrnnError(f"process {rank} of {world} ended with: {said}; {again}")
    return CrnnError(f"the run has stopped, see above; {again}")


def go_on(folder: Path) -> str:
    """How a run that has stopped goes on."""
    if not (folder / CHECKPOINT).exists():
        return "it had no checkpoint yet: start it again"
    return f"crnn train --resume --output {shlex.quote(str(folder))} goes on from the last checkpoint"


def _last_words(folder: Path, rank: int) -> str:
    """The last line that a process wrote to stderr."""
    logs = sorted(folder.glob(f"*/attempt_0/{rank}/stderr.log"), key=lambda path: path.stat().st_mtime)
    lines = logs[-1].read_text("utf-8", "replace").split("\n") if logs else []
    return next((line.removeprefix("crnn: ") for line in reversed(lines) if line.strip()), "no message")


# ---- sums over all processes -----------------------------------------------------------------------------------------


class SyncedNorm(nn.BatchNorm2d):
    """Batch normalisation with the statistics of the crops of all processes, on CPUs, where PyTorch has none."""

    def forward(self, images: Tensor) -> Tensor:
        if not self.training or not (dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(images)
        from torch.distributed.nn.functional import all_reduce  # one that gradients pass through

        x = images.float()
        axes = (0, 2, 3)
        count = torch.tensor([float(x.numel() / x.shape[1])])
        total = all_reduce(torch.cat([x.sum(axes), count]))
        count, mean = total[-1].detach(), total[:-1] / total[-1].detach()
        gap = x - mean[:, None, None]
        variance = all_reduce((gap * gap).sum(axes)) / count
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        with torch.no_grad():
            part = self.momentum or 0.0
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, part)
            self.running_var.lerp_(variance * (count / (count - 1)), part)
        scaled = gap * (self.weight / (variance + self.eps).sqrt())[:, None, None] + self.bias[:, None, None]
        return scaled.to(images.dtype)


def synced(model: CRNN) -> None:
    """Makes its batch normalisation one over all processes; names of weights stay the same."""
    if torch.cuda.is_available():
        model.backbone = nn.SyncBatchNorm.convert_sync_batchnorm(model.backbone)
        return
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedNorm


def gathered(own: list[Any]) -> list[Any]:
    """The lists of all processes, one after the other, in each of them."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return own
    lists: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(lists, own)
    return [item for each in lists for item in each]
