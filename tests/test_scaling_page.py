"""The scripts of docs/scaling.md: what they would start on each machine, with what each cluster sets."""

import math
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from retinamask.training.distribution import Cluster, read_cluster

PAGE = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    [found] = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return found


def run_with(folder: Path, script: str, programs: dict[str, str], **variables: str) -> str:
    """What ``script`` prints when these are the programs that it finds."""
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    environment = os.environ | variables | {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-ec", script], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def started(printed: str, monkeypatch) -> tuple[Cluster | None, str]:
    """The cluster that was set, and the command, from what a stand-in for the command has printed."""
    config, _, command = printed.partition("###")
    monkeypatch.setenv("TF_CONFIG", config)
    return read_cluster(), command.strip()


SHOW = 'echo "$TF_CONFIG ### $*"'


@pytest.mark.parametrize("node", [0, 1, 2])
def test_slurm_gives_each_node_its_place(tmp_path, monkeypatch, node):
    programs = {
        "scontrol": "printf 'gpu-a03\\ngpu-a04\\ngpu-b11\\n'",  # one name a line, as `scontrol show hostnames`
        "srun": '[ "$1" = --kill-on-bad-exit=1 ] && shift && exec "$@"',
        "retinamask": SHOW,
    }
    variables = {"SLURM_JOB_NODELIST": "gpu-a[03-04],gpu-b11", "SLURM_NODEID": str(node)}
    cluster, command = started(run_with(tmp_path, block("bash"), programs, **variables), monkeypatch)
    assert cluster == Cluster(("gpu-a03:2222", "gpu-a04:2222", "gpu-b11:2222"), node)
    assert command.startswith("train data/annotations.csv data/classes.csv") and command.endswith("--resume")


@pytest.mark.parametrize("pod", [0, 1])
def test_kubernetes_gives_each_pod_its_place(tmp_path, monkeypatch, pod):
    service, job = yaml.safe_load_all(block("yaml"))
    spec = job["spec"]["template"]["spec"]
    assert spec["subdomain"] == service["metadata"]["name"] and service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert job["spec"]["completionMode"] == "Indexed" and job["spec"]["completions"] == job["spec"]["parallelism"]
    [container] = spec["containers"]
    script, variables = container["command"][-1], {"JOB_COMPLETION_INDEX": str(pod)}
    cluster, command = started(run_with(tmp_path, script, {"retinamask": SHOW}, **variables), monkeypatch)
    names = [f"{job['metadata']['name']}-{number}.{service['metadata']['name']}:2222" for number in range(2)]
    assert cluster == Cluster(tuple(names), pod) and len(names) == job["spec"]["completions"]
    assert command.startswith("train /data/annotations.csv") and command.endswith("--resume")


def test_every_command_of_the_page_is_understood():
    from retinamask.cli import _parser

    joined = PAGE.replace("\\\n", " ")
    commands = re.findall(r"retinamask ((?:train|detect|sweep) [^\n`']+)", joined)
    assert len(commands) == 8
    for command in commands:
        _parser().parse_args(command.split())


def test_the_cores_follow_from_the_measured_rates():
    rows = re.findall(r"^\| (?:int8|float32) \| ([\d.]+) \| (\d+) \| (\d+) \|$", PAGE, flags=re.MULTILINE)
    assert len(rows) == 2
    for rate, *cores in rows:
        assert [int(each) for each in cores] == [math.ceil(a_day / (float(rate) * 86_400)) for a_day in (1e6, 1e9)]
