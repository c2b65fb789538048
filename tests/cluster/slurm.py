"""A Slurm cluster on this machine: two nodes with four fake GPUs each, for one test session.

The daemons are Debian's. The GPUs are fake (Slurm allocates other character devices as GPUs),
authentication is off, and a text file replaces the accounting database.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from tests.cluster.waiting import until

NODES = ("n1", "n2")
GPUS_PER_NODE = 4
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol")
_DEVICES = ("/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def missing_programs() -> list[str]:
    """Return the names of the Slurm programs that are not installed."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Slurm:
    """A running cluster.

    Parameters
    ----------
    folder : Path
        Where the cluster keeps its configuration, state and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.history = folder / "history.txt"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        """Write the configuration, start the daemons and wait until both nodes are idle."""
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        self._configure()
        self._daemon("slurmctld", "slurmctld", "-D", "-i")
        for node in NODES:
            self.start_node(node)
        until(lambda: self.run("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == "2", 60, "nodes")

    def start_node(self, node: str) -> None:
        """Start a node's daemon."""
        self._daemon(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """Kill a node's daemon and everything it started, as a power loss does."""
        daemon = self._daemons.pop(node)
        processes = [psutil.Process(daemon.pid), *self._node_processes(node)]
        # Suspend all first, so that no process can react to the death of another. Then kill
        # children before their parents: the kernel wakes suspended processes whose parent dies, and
        # an srun that wakes cancels its step, which the controller repeats once the node is back.
        for process in processes:
            with suppress(psutil.Error):
                process.suspend()
        for process in reversed(processes):
            with suppress(psutil.Error):
                process.kill()
        daemon.wait()

    def stop(self) -> None:
        """Cancel the jobs, then terminate the daemons."""
        self.run("scancel", "--me", check=False)
        until(lambda: not self.run("squeue", "-h", check=False).strip(), 60, "jobs to end")
        for name in [*NODES, "slurmctld"]:
            if daemon := self._daemons.pop(name, None):
                daemon.terminate()
                daemon.wait(30)

    def _daemon(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, cwd=self.folder
            )

    def _configure(self) -> None:
        user = getpass.getuser()
        controller, *nodes = _free_ports(1 + len(NODES))
        lines = [
            "ClusterName=test",
            "SlurmctldHost=localhost",
            f"SlurmctldPort={controller}",
            f"SlurmUser={user}",
            f"SlurmdUser={user}",
            "AuthType=auth/none",
            "CredType=cred/none",
            "AuthInfo=cred_expire=5",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "JobAcctGatherType=jobacct_gather/none",
            "AccountingStorageType=accounting_storage/none",
            "JobCompType=jobcomp/filetxt",
            f"JobCompLoc={self.history}",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core_Memory",
            "GresTypes=gpu",
            "SlurmdParameters=config_overrides",
            "MpiDefault=none",
            "ReturnToService=2",
            "SlurmdTimeout=15",
            "KillWait=20",
            "SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0",
            f"StateSaveLocation={self.folder}/state",
            f"SlurmctldPidFile={self.folder}/slurmctld.pid",
            f"SlurmctldLogFile={self.folder}/slurmctld.log",
            f"SlurmdSpoolDir={self.folder}/spool-%n",
            f"SlurmdPidFile={self.folder}/slurmd-%n.pid",
            f"SlurmdLogFile={self.folder}/slurmd-%n.log",
            *(
                f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=8 "
                f"RealMemory=64000 Gres=gpu:fake:{GPUS_PER_NODE}"
                for node, port in zip(NODES, nodes, strict=True)
            ),
            f"PartitionName=gpu Nodes={','.join(NODES)} Default=YES DefMemPerCPU=100",
        ]
        gres = [f"NodeName={n} Name=gpu Type=fake File={d}" for n in NODES for d in _DEVICES]
        self._write("slurm.conf", lines)
        self._write("gres.conf", gres)
        self._write("cgroup.conf", ["CgroupPlugin=cgroup/v1"])

    def _write(self, name: str, lines: list[str]) -> None:
        (self.folder / name).write_text("\n".join(lines) + "\n", encoding="ascii")

    def run(
        self, *command: object, check: bool = True, env: Mapping[str, str] | None = None, **other
    ) -> str:
        """Run a command in the cluster's environment and return its output."""
        done = subprocess.run(
            [str(word) for word in command],
            env={**self.environment, **(env or {})},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            **other,
        )
        if check and done.returncode:
            raise RuntimeError(
                f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def state(self, job: str) -> str:
        """Return a job's current or final state; for an array, the states of all its tasks."""
        shown = self.run("squeue", "-h", "-j", job, "-o", "%T", check=False).split()
        if shown:
            return " ".join(shown)
        ended: dict[str, str] = {}
        for line in self.history.read_text(encoding="utf-8").splitlines():
            fields = dict(part.partition("=")[::2] for part in line.split())
            if fields.get("JobId") == job or fields.get("ArrayJobId") == job:
                ended[fields["JobId"]] = fields["JobState"]
        return " ".join(ended.values())

    def wait(self, *jobs: str, seconds: float = 300) -> list[str]:
        """Wait until the jobs have left the queue; return their final states."""
        until(
            lambda: not self.run("squeue", "-h", "-j", ",".join(jobs), check=False).strip(),
            seconds,
            f"jobs {jobs}",
        )
        time.sleep(1)  # Slurm writes the history a moment later
        return [self.state(job) for job in jobs]

    def _node_processes(self, node: str) -> list[psutil.Process]:
        """Return the processes of a node's jobs: the step daemons, which detach, and the tasks."""
        log = f"{self.folder}/slurmd-{node}.log"
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                environment = process.environ()
                ours = environment.get("SLURM_CONF") == self.environment["SLURM_CONF"]
                if (ours and environment.get("SLURMD_NODENAME") == node) or (
                    process.name() == "slurmstepd" and log in {f.path for f in process.open_files()}
                ):
                    found.append(process)
        return found
