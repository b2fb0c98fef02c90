"""A node, its two workloads and their network, made of namespaces; and the node proxy under test.

    namespace node: bridge 10.99.0.1, culvert-node when it runs
    namespace client 10.99.0.2 ── veth ── bridge ── veth ── namespace server 10.99.0.3
    namespaces plainclient 10.99.0.4, plainserver 10.99.0.5: their twins at the same bridge, never in the mesh
    cgroup ID/apps: servers and clients; the connect hooks are attached to ID, never to the root; the twins' processes
    are as deep, in the cgroup ID-plain/apps, where there are none
"""
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
CLIENT, SERVER = "10.99.0.2", "10.99.0.3"
PLAIN_SERVER = "10.99.0.5"
PODS = {"client": CLIENT, "server": SERVER, "plainclient": "10.99.0.4", "plainserver": PLAIN_SERVER}
NODE = "bench"
PREFIX = "cvbench"


class BenchFailure(Exception):
    """What could not be measured, and why."""


def say(text):
    """Progress, apart from the result."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def run(*words, **more):
    """Runs a command to its end. Returns its output; fails when it fails."""
    result = subprocess.run(words, capture_output=True, text=True, **more)
    if result.returncode != 0:
        raise BenchFailure(f"{' '.join(words)}: exit status {result.returncode}: {result.stderr}{result.stdout}")
    return result.stdout


def build():
    """The release executables' folder."""
    for product in ["culvert-node", "culvert", "culvert-load"]:
        say(f"release build of {product}")
        run("swift", "build", "-c", "release", "--product", product, cwd=ROOT)
    return run("swift", "build", "-c", "release", "--show-bin-path", cwd=ROOT).strip()


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


class Lab:
    def __init__(self, binaries, pinned, congestion_control):
        """`pinned`: the CPU of a namespace's processes, where it matters. `congestion_control`: of TCP between them."""
        self.binaries = binaries
        self.congestion_control = congestion_control
        self.pinned = pinned
        self.id = f"{PREFIX}{os.getpid()}"
        self.processes = []
        self.daemon = None
        self.folder = self.cgroup = None

    def __enter__(self):
        for program in ["ip", "nsenter", "findmnt", "curl", "sysctl"]:
            if not shutil.which(program):
                raise BenchFailure(f"there is no '{program}': run Deploy/packages --test first")
        sweep()
        try:
            self.set_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def set_up(self):
        mount = run("findmnt", "-n", "-o", "TARGET", "-t", "cgroup2", "--first-only").strip()
        self.cgroup = f"{mount}/{self.id}"
        os.makedirs(f"{self.cgroup}/apps")
        os.makedirs(f"{self.cgroup}-plain/apps")
        self.folder = tempfile.mkdtemp(prefix=f"{self.id}-")
        self.bpffs = f"{self.folder}/bpf"
        os.makedirs(self.bpffs)
        os.makedirs(f"{self.folder}/config")
        run("mount", "-t", "bpf", "-o", "mode=0700", "bpf", self.bpffs)
        for name in ["node", *PODS]:
            run("ip", "netns", "add", self.namespace(name))
            run("ip", "-n", self.namespace(name), "link", "set", "lo", "up")
        node = self.namespace("node")
        run("ip", "-n", node, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", node, "addr", "add", "10.99.0.1/24", "dev", "br0")
        run("ip", "-n", node, "link", "set", "br0", "up")
        for name, address in PODS.items():
            pod = self.namespace(name)
            run("ip", "-n", pod, "link", "add", "eth0", "type", "veth", "peer", "name", f"v-{name}", "netns", node)
            run("ip", "-n", pod, "addr", "add", f"{address}/24", "dev", "eth0")
            run("ip", "-n", pod, "link", "set", "eth0", "up")
            # By the route: a namespace other than the first may not set it for itself.
            run("ip", "-n", pod, "route", "change", "10.99.0.0/24", "dev", "eth0", "src", address, "congctl",
                self.congestion_control)
            run("ip", "-n", pod, "route", "add", "default", "via", "10.99.0.1")
            run("ip", "-n", node, "link", "set", f"v-{name}", "master", "br0", "up")
        # More short connections in a minute than one destination has ports: what waits in TIME_WAIT is reused.
        for setting in ["net.ipv4.tcp_tw_reuse=1", "net.ipv4.ip_local_port_range=20000 60999"]:
            for name in ["client", "plainclient"]:
                run("ip", "netns", "exec", self.namespace(name), "sysctl", "-qw", setting)

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()
        if self.cgroup:
            remove(self.id, self.cgroup)

    def namespace(self, name):
        return f"{self.id}{name}"

    # Processes

    def inside(self, name, words):
        role = name.removeprefix("plain")
        if role in self.pinned:
            words = ["taskset", "-c", str(self.pinned[role]), *words]
        cgroup = f"{self.cgroup}/apps" if role == name else f"{self.cgroup}-plain/apps"
        return ["sh", "-c", f'echo $$ >{cgroup}/cgroup.procs && exec "$@"', "sh", "nsenter",
                f"--net=/run/netns/{self.namespace(name)}", *words]

    def spawn(self, words, **more):
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, text=True, preexec_fn=die_with_parent, **more)
        self.processes.append(process)
        return process

    def stop(self, process, with_signal=signal.SIGTERM):
        process.send_signal(with_signal)
        process.wait(60)
        self.processes.remove(process)

    def serve(self, name, *arguments):
        server = self.spawn(
            self.inside(name, [f"{self.binaries}/culvert-load", "serve", *arguments]), stdout=subprocess.PIPE)
        if server.stdout.readline() != "ready\n":
            raise BenchFailure(f"culvert-load serve {' '.join(arguments)} did not start")
        return server

    def load(self, *arguments, client="client"):
        """Runs culvert-load in a client's namespace. Any failed connection is fatal: a broken path is not slow."""
        words = self.inside(client, [f"{self.binaries}/culvert-load", *arguments])
        result = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if result.returncode != 0:
            raise BenchFailure(f"culvert-load {' '.join(arguments)}: {result.stdout}{result.stderr}{self.log_tail()}")
        return json.loads(result.stdout)

    # The node proxy

    @property
    def place(self):
        return ["--node-name", NODE, "--cgroup", self.cgroup, "--bpffs", self.bpffs, "--run-dir", f"{self.folder}/run"]

    @property
    def pins(self):
        return f"{self.bpffs}/culvert/{NODE}"

    def configure(self, mesh, workload=""):
        """Writes the configuration. Returns why this build refuses it, or None."""
        text = f"""
apiVersion: culvert.dev/v1alpha1
kind: Mesh
metadata: {{name: default}}
spec: {{trustDomain: cluster.local, {mesh}}}
"""
        for name, address in [("client", CLIENT), ("server", SERVER)]:
            text += f"""---
apiVersion: culvert.dev/v1alpha1
kind: Workload
metadata: {{name: {name}, namespace: default, labels: {{app: {name}}}}}
spec:
  addresses: [{address}]
  node: {NODE}
  serviceAccount: {name}
  protocol: TLS
  netns: /run/netns/{self.namespace(name)}
  {workload}
"""
        path = f"{self.folder}/config/mesh.yaml"
        with open(path, "w") as file:
            file.write(text)
        if os.path.exists(self.addition):
            os.remove(self.addition)
        result = subprocess.run([f"{self.binaries}/culvert", "validate", path], capture_output=True, text=True)
        if result.returncode == 0:
            return None
        return (result.stdout + result.stderr).strip().replace(f"{self.folder}/", "").splitlines()[0]

    def add_configuration(self, text):
        """Adds to the configuration of a running node proxy; `configure` takes it away."""
        with open(f"{self.addition}.new", "w") as file:
            file.write(text)
        os.rename(f"{self.addition}.new", self.addition)

    @property
    def addition(self):
        return f"{self.folder}/config/more.yaml"

    def start_daemon(self):
        """Starts the node proxy and waits until both workloads are captured."""
        self.log = open(f"{self.folder}/node.log", "w")
        self.daemon = self.spawn(
            ["nsenter", f"--net=/run/netns/{self.namespace('node')}", f"{self.binaries}/culvert-node", *self.place,
             "--config", f"{self.folder}/config", "--state-dir", f"{self.folder}/state"],
            stdout=self.log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 60
        while self.ask(15021, "healthz/ready").returncode != 0:
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                raise BenchFailure(f"culvert-node is not ready: {self.log_tail()}")
            time.sleep(0.05)

    def ask(self, port, path):
        return subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.namespace('node')}", "curl", "-fsS", "--max-time", "10",
             f"http://127.0.0.1:{port}/{path}"], capture_output=True, text=True)

    def stop_daemon(self, with_signal=signal.SIGTERM):
        """Stops the node proxy and takes its capture away: from here on there is no mesh."""
        self.stop(self.daemon, with_signal)
        self.daemon = None
        self.log.close()
        run(f"{self.binaries}/culvert", "uninstall", *self.place)

    def metric(self, name, labels=""):
        """The sum of a metric's series whose labels contain `labels`."""
        text = self.ask(15020, "metrics").stdout
        lines = [line for line in text.splitlines() if re.match(rf"{name}[{{ ]", line) and labels in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def log_tail(self):
        try:
            with open(f"{self.folder}/node.log") as file:
                return "\n" + "".join(file.readlines()[-10:])
        except FileNotFoundError:
            return ""


def cpu_seconds(process):
    """CPU time a process of any number of threads used so far; none for no process."""
    total = 0
    for thread in os.listdir(f"/proc/{process.pid}/task") if process else []:
        with open(f"/proc/{process.pid}/task/{thread}/schedstat") as file:
            total += int(file.read().split()[0])
    return total / 1e9


def machine_cpu_seconds():
    """(busy, all) CPU time of the machine so far; what a hypervisor took away is busy."""
    with open("/proc/stat") as file:
        user, nice, system, idle, wait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    busy = user + nice + system + irq + softirq + steal
    tick = os.sysconf("SC_CLK_TCK")
    return busy / tick, (busy + idle + wait) / tick


def remove(identifier, cgroup):
    """Takes down everything a lab of this name made; what is already gone is no failure."""
    for entry in os.listdir("/run/netns") if os.path.isdir("/run/netns") else []:
        if re.fullmatch(f"{identifier}(node|(plain)?client|(plain)?server)", entry):
            subprocess.run(["ip", "netns", "del", entry], check=False)
    temporary = tempfile.gettempdir()
    for entry in os.listdir(temporary):
        if entry.startswith(f"{identifier}-"):
            subprocess.run(["umount", "-q", f"{temporary}/{entry}/bpf"], check=False)
            shutil.rmtree(f"{temporary}/{entry}", ignore_errors=True)
    for group in [cgroup, f"{cgroup}-plain"]:
        for folder, _, _ in os.walk(group, topdown=False):
            os.rmdir(folder)


def sweep():
    """Takes down what killed runs left."""
    mount = run("findmnt", "-n", "-o", "TARGET", "-t", "cgroup2", "--first-only").strip()
    names = os.listdir(mount) + os.listdir(tempfile.gettempdir())
    if os.path.isdir("/run/netns"):
        names += os.listdir("/run/netns")
    for number in {int(found[1]) for found in (re.match(f"{PREFIX}([0-9]+)", name) for name in names) if found}:
        if not os.path.exists(f"/proc/{number}"):
            remove(f"{PREFIX}{number}", f"{mount}/{PREFIX}{number}")
