"""Several processes train as one does; when one is lost the run says so and goes on from where it stood."""

import os
import signal
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from crnn import learner
from crnn.config import load_config
from crnn.data.loader import Mixture, collate
from crnn.devices import find_ranks
from crnn.errors import ConfigError, CrnnError
from crnn.training import on_devices, train

PLAIN = {"name": "sgd", "learning_rate": 0.01, "batch_rule": "none", "ema": 0.9}


class Doubled(Mixture):
    """What two processes deal to themselves as one batch of twice the size, for one process."""

    def __init__(self, parts, charset, preprocessing, batch, seed, first, *_) -> None:
        super().__init__(parts, charset, preprocessing, batch, seed, first, hands=2)

    def __getitem__(self, chunk: int) -> list:
        pairs = zip(self.deal(chunk, 0), self.deal(chunk, 1), strict=True)
        return [collate(one + two, self.charset, self.preprocessing) for one, two in pairs]


def settings(folder: Path, output: Path, **options):
    return load_config(
        output=str(output),
        train=[{"path": str(folder), "augment": 0.0}],
        model={"hidden": 16, "layers": 1, "dropout": 0.0},
        optimiser=PLAIN,
        **{"steps": 12, "batch": 4, "workers": 0, "precision": "32", "validate_every": 100, "checkpoint_every": 1}
        | options,
    )


def kill_second_process(checkpoint: Path) -> None:
    """As soon as there is a checkpoint."""
    until = time.monotonic() + 120
    while time.monotonic() < until and not checkpoint.exists():
        time.sleep(0.01)
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            environment = (status.parent / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent == os.getpid() and b"RANK=1" in environment:
            os.kill(int(status.parent.name), signal.SIGKILL)


def test_two_processes_of_which_one_is_lost_end_with_the_weights_of_one(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(4)
    for i in range(40):  # of one width: the padding of a narrower half would count in its normalisation
        cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 255, (32, 64, 3), np.uint8))
    (folder / "labels.tsv").write_text("".join(f"{i}.png\t{i:02d}\n" for i in range(40)), "utf-8")

    config = settings(folder, tmp_path / "two", devices=2, steps=16)
    threading.Thread(target=kill_second_process, args=(tmp_path / "two" / "last.ckpt",), daemon=True).start()
    with pytest.raises(CrnnError, match=r"process 1 of 2 was killed \(SIGKILL.*train --resume --output"):
        train(config)
    assert not (tmp_path / "two" / "weights.safetensors").exists()
    two = load_file(train(config, resume=True).folder / "weights.safetensors")

    monkeypatch.setattr(learner, "Mixture", Doubled)
    one = load_file(train(settings(folder, tmp_path / "one", steps=16)).folder / "weights.safetensors")
    assert one.keys() == two.keys()
    worst = max((one[name].double() - two[name].double()).abs().max().item() for name in one)
    assert worst < 1e-4, worst  # sums in another order, sixteen steps long


def test_a_resumed_run_keeps_its_samples_on_other_devices(tmp_path):
    config = settings(tmp_path, tmp_path, devices=2, nodes=2, accumulate=2)
    assert on_devices(config, 1, 1).accumulate == 8
    assert on_devices(config, 4, 2).accumulate == 1
    with pytest.raises(ConfigError, match="8 batches of 4, which 3 processes cannot share"):
        on_devices(config, 3, 1)


def test_launchers_are_recognised_by_their_variables(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert find_ranks().world == 1
    with monkeypatch.context() as torchrun:
        for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "1"}.items():
            torchrun.setenv(name, value)
        found = find_ranks()
        assert (found.rank, found.world, found.local, found.nodes) == (5, 8, 4, 2)
    with monkeypatch.context() as slurm:
        for name, value in {
            "SLURM_PROCID": "3",
            "SLURM_NTASKS": "4",
            "SLURM_NNODES": "2",
            "SLURM_STEP_ID": "0",
        }.items():
            slurm.setenv(name, value)
        found = find_ranks()
        assert (found.rank, found.world, found.local, found.nodes) == (3, 4, 2, 2)


def test_more_devices_than_gpus_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="devices = 4 needs as many GPUs, and this machine has 2"):
        train(settings(tmp_path, tmp_path / "run", devices=4))


def test_several_machines_need_a_place_to_meet(tmp_path):
    with pytest.raises(ConfigError, match="--rendezvous HOST:PORT"):
        train(settings(tmp_path, tmp_path / "run", nodes=2))
