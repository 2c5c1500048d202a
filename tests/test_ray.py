"""``prepare`` on a real Ray cluster of two nodes, started on this machine for the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from crnn.data.prepare import prepare
from crops import write_folder

# A process of its own: Ray takes over signals and leaves threads behind.
ON_A_CLUSTER = r"""
import json, sys, time
import ray
from ray.cluster_utils import Cluster
from crnn.data import parallel
from crnn.data.prepare import prepare
from crnn.errors import DataError

def where(number):
    time.sleep(1)  # long enough for the other node to take some
    return ray.get_runtime_context().get_node_id()

def fail(number):
    raise DataError(f"number {number} is bad")

node = {"num_cpus": 2, "object_store_memory": 256 << 20}
cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
try:
    cluster.add_node(**node)
    summary = prepare([sys.argv[1]], sys.argv[2], shard_size=8, ray=cluster.address)
    nodes = set(parallel.run(where, range(4), ray=cluster.address))
    try:
        list(parallel.run(fail, range(1), ray=cluster.address))
    except DataError as error:
        failure = str(error)
finally:
    ray.shutdown()
    cluster.shutdown()
json.dump({"samples": summary.samples, "nodes": len(nodes), "failure": failure}, open(sys.argv[3], "w"))
"""


def test_two_nodes_write_the_same_bytes_as_one_process(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", [f"word{i}" for i in range(20)])
    arguments = [str(tmp_path / name) for name in ("in", "cluster", "answer.json")]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    command = [sys.executable, "-c", ON_A_CLUSTER, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert answer == {"samples": 20, "nodes": 2, "failure": "number 0 is bad"}
    prepare([tmp_path / "in"], tmp_path / "alone", shard_size=8, workers=1)
    for file in sorted((tmp_path / "alone").iterdir()):
        assert (tmp_path / "cluster" / file.name).read_bytes() == file.read_bytes(), file.name
