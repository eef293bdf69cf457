"""Ceph's S3 gateway (radosgw) for tests, over one monitor and one store in memory. Debian has the packages."""

import contextlib
import os
import shutil
import signal
import subprocess
import uuid
from pathlib import Path

from tests.servers.process import ServerProcess, accepts, free_port

PROGRAMS = ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "monmaptool")
START_SECONDS = 60.0
COMMAND_SECONDS = 60.0
ASK_ATTEMPTS = 5
# What depends on the others comes first.
STOP_ORDER = ("rgw", "osd", "mon")

CONFIGURATION = """[global]
fsid = {cluster}
mon_host = {monitor}
mon_initial_members = a
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
mon_allow_pool_size_one = true
mon_data = {directory}/mon
mon_data_avail_crit = 0
mon_max_pg_per_osd = 1000
osd_crush_chooseleaf_type = 0
# A store that asks the monitor for these at its start does so too early now and then, and waits forever.
osd_class_update_on_start = false
osd_crush_update_on_start = false
osd_data = {directory}/osd
osd_objectstore = memstore
osd_pool_default_min_size = 1
osd_pool_default_pg_autoscale_mode = off
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_size = 1
memstore_device_bytes = 4G
# The default waits a second for every change of the cluster's map; there are dozens at the start.
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
log_file = {directory}/$name.log
run_dir = {directory}/run
admin_socket = {directory}/run/$name.asok
ms_bind_msgr2 = false
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{port}
rgw_data = {directory}/rgw
# Gateways tell each other what they cached: one that was started anew would wait half a minute for the killed one.
rgw_cache_enabled = false
# What it does by itself now and then, with 512 threads, is nothing to a test; six of them idle through a whole run.
rgw_thread_pool_size = 16
rgw_enable_gc_threads = false
rgw_enable_lc_threads = false
rgw_enable_quota_threads = false
rgw_run_sync_thread = false
# Buckets also stand in the host name: bucket.localhost.
rgw_dns_name = localhost
"""

# Ends the three in order once its standard input closes, as it does when the test run dies, however it dies.
GUARD = """
read -r line
for name in {order}; do
    pid=$(cat "{directory}/run/$name.pid" 2>/dev/null) || continue
    kill "$pid" 2>/dev/null
    for turn in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$pid" 2>/dev/null || break; sleep 0.2; done
    kill -9 "$pid" 2>/dev/null
done
rm -rf "{directory}"
"""


def is_installed() -> bool:
    return all(shutil.which(program) for program in PROGRAMS)


class Ceph:
    """`directory` is new, private, and has a short path, for there are unix sockets in it; it goes at the end."""

    def __init__(self, directory: Path, *, users: dict[str, tuple[str, str]]) -> None:
        """`users` has access key and secret key by name."""
        self.port = free_port()
        self._directory = directory
        self._users = users
        self._processes: dict[str, ServerProcess] = {}
        self._monitor = f"v1:127.0.0.1:{free_port()}"

    def start(self) -> None:
        """Everything, or, after `kill`, the gateway alone. Returns once it answers."""
        if self._processes:
            self._start_gateway()
            return
        self._start_guard()
        self._start_cluster()
        self._start_gateway()
        for name, (access_key, secret_key) in self._users.items():
            keys = (f"--access-key={access_key}", f"--secret-key={secret_key}")
            self._call("radosgw-admin", "user", "create", f"--uid={name}", f"--display-name={name}", *keys)

    def stop(self) -> None:
        for name in STOP_ORDER:
            if name not in self._processes:
                continue
            process = self._processes.pop(name)
            # Neither store nor monitor has anything to save, and both take their time over it.
            process.send_signal(signal.SIGCONT)
            process.stop(with_signal=signal.SIGTERM if name == "rgw" else signal.SIGKILL)
        self._guard.kill()
        self._guard.wait()
        shutil.rmtree(self._directory)

    @property
    def gateway(self) -> ServerProcess:
        return self._processes["rgw"]

    def kill(self) -> None:
        """End the gateway at once. What it stored stays."""
        self._pid_file("rgw").unlink(missing_ok=True)
        self._processes["rgw"].kill()

    def _start_guard(self) -> None:
        (self._directory / "run").mkdir()
        script = GUARD.format(order=" ".join(STOP_ORDER), directory=self._directory)
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _start_cluster(self) -> None:
        cluster = str(uuid.uuid4())
        for name in ("mon", "osd", "rgw"):
            (self._directory / name).mkdir()
        (self._directory / "ceph.conf").write_text(
            CONFIGURATION.format(
                cluster=cluster, directory=self._directory, monitor=self._monitor, port=self.port
            )
        )
        monitors = self._directory / "monmap"
        self._call("monmaptool", "--create", "--addv", "a", f"[{self._monitor}]", "--fsid", cluster, monitors)
        self._call("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors)
        self._run("mon", "ceph-mon", "-f", "-i", "a")
        store = str(uuid.uuid4())
        self._ask("osd", "create", store)
        self._call("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", store)
        self._run("osd", "ceph-osd", "-f", "-i", "0")
        self._ask("osd", "crush", "add", "osd.0", "1.0", "root=default", "host=here")

    def _start_gateway(self) -> None:
        self._run("rgw", "radosgw", "-f", "-n", "client.rgw")
        self.gateway.wait_until(lambda: accepts(self.port), seconds=START_SECONDS, what="radosgw listens")

    def _run(self, name: str, *command: str) -> None:
        process = ServerProcess(
            command,
            log=self._directory / f"{name}.out",
            environment=self._environment(),
            directory=self._directory,
        )
        self._processes[name] = process
        self._pid_file(name).write_text(str(process.pid))

    def _ask(self, *command: str) -> None:
        """A command to the monitor. The program now and then asks before it knows the cluster's id, and is refused."""
        for _ in range(ASK_ATTEMPTS - 1):
            with contextlib.suppress(AssertionError):
                return self._call("ceph", *command)
        return self._call("ceph", *command)

    def _call(self, *command: str | Path) -> None:
        done = subprocess.run(
            [str(part) for part in command],
            env=self._environment(),
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )
        assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"

    def _pid_file(self, name: str) -> Path:
        return self._directory / "run" / f"{name}.pid"

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "CEPH_CONF": str(self._directory / "ceph.conf"),
            "LC_ALL": "C.UTF-8",
        }
