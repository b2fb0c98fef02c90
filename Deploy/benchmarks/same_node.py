"""Two workloads of one node: every tier against direct TCP over the same veth pairs without a mesh.

While a tier is on, short slices take turns: the workloads, and twins of them at the same bridge, which no hook sees. A
slice is compared with the two of the twins beside it, so what else the machine does hits all three. Printed are
medians of these ratios with the quartiles. Control: before there was ever a mesh, the workloads against their twins.
Targets are about a tier's ratio over the control's: the same veth pairs with and without a mesh.
"""
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time

from .bpf import RunStatistics
from .lab import CLIENT, PLAIN_SERVER, SERVER, BenchFailure, Lab, cpu_seconds, machine_cpu_seconds, run, say

ECHO, SINK, LOCAL = 7001, 7002, 7003
TOLERATED = 0.2  # the share of the machine that others may have; beyond it rates judge nothing
SLICES = 5  # of each measurement in a visit
MORE_SLICES = {"rr1": 12, "bulk": 12}  # whose rates scatter most: one connection's luck with the scheduler
CONNECTS_PER_BATCH = 1000  # fits in every listener's backlog

# name: (what it is, how to load, the rate in the report, the work done in the report)
METRICS = {
    "rr1": ("round trips/s, 1 × 128 B", ["rr", "--connections", "1"], "per_second", "round_trips"),
    "rr32": ("round trips/s, 32 × 128 B", ["rr", "--connections", "32"], "per_second", "round_trips"),
    "rr64k": ("round trips/s, 1 × 64 KiB", ["rr", "--size", "65536"], "per_second", "round_trips"),
    "bulk": ("bulk, 1 stream, Gbit/s", ["bulk"], "gbit_per_second", "bytes"),
    "connect1": ("connections/s, 1 at a time", ["connect", "--connections", "1"], "per_second", "done"),
    "connect16": ("connections/s, 16 at a time", ["connect", "--connections", "16"], "per_second", "done"),
}

# name: (what it is, Mesh settings, Workload settings, the capture event that shows that its way was taken)
TIERS = {
    "T0": ("through the proxy, no TLS", "sameNode: proxy", "", "outbound_marked"),
    "T1": ("direct, allowed in the kernel", "sameNode: direct", "", "direct"),
    "T2": ("direct, sockmap", "sameNode: direct", "acceleration: sockmap", "accelerated"),
    "tunnel": ("through the proxy, TLS", "sameNode: tunnel", "", "outbound_marked"),
}

TARGETS = {
    "T1": {"rr1": 0.97, "rr32": 0.97, "bulk": 0.97, "connect1": 0.8, "connect16": 0.8},
    "T2": {"rr32": 2.0, "bulk": 0.9},
}
REVOKED_WITHIN = 1.0  # seconds from a policy's change until an open direct connection is reset

# A direct connection, and when it was reset, by the clock that all processes share.
VICTIM = """
import socket, sys, time
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
connection.settimeout(30)
connection.sendall(b"x")
connection.recv(1)
print("ready", flush=True)
try:
    connection.recv(1)
    sys.exit("it was not reset but closed")
except (ConnectionResetError, ConnectionAbortedError):
    print(time.monotonic(), flush=True)
"""


def between(kind, least, most):
    """Reads an option's number."""

    def number(word):
        value = kind(word)
        if not least <= value <= most:
            raise ValueError
        return value

    number.__name__ = f"number from {least} to {most}"
    return number


def congestion_controls():
    """Those of this kernel, the default first."""
    with open("/proc/sys/net/ipv4/tcp_available_congestion_control") as file:
        return sorted(file.read().split(), key=lambda name: name != "cubic")


def arguments(command):
    controls = congestion_controls()
    command.add_argument("--rounds", type=between(int, 1, 1000), default=7, help="visits of each tier (default 7)")
    command.add_argument(
        "--seconds", type=between(float, 0.1, 60), default=0.2, help="of each slice (default 0.2)")
    command.add_argument("--pin", action="store_true", help="the client to CPU 0 and the server to CPU 1")
    command.add_argument(
        "--congestion-control", choices=controls, default=controls[0],
        help="of TCP (default cubic, which is Linux's own; bbr paces, and bulk then scatters twice as much)")
    command.add_argument("--tiers", nargs="+", choices=list(TIERS), default=list(TIERS), help="default: all")


def measure(options, binaries):
    with Lab(binaries, {"client": 0, "server": 1} if options.pin else {}, options.congestion_control) as lab:
        server = lab.serve("server", "--echo", f"{SERVER}:{ECHO}", "--sink", f"{SERVER}:{SINK}")
        twin = lab.serve("plainserver", "--echo", f"{PLAIN_SERVER}:{ECHO}", "--sink", f"{PLAIN_SERVER}:{SINK}")
        refusals = {name: obstacle(lab, name) for name in options.tiers}
        available = [name for name in options.tiers if refusals[name] is None]
        plain, found, others = rounds(lab, server, twin, options, available)
        return {
            "benchmark": "same-node",
            "kernel": platform.release(),
            "cpus": os.cpu_count(),
            "pinned": options.pin,
            "congestion_control": options.congestion_control,
            "others_share": others,
            "rounds": options.rounds,
            "seconds": options.seconds,
            "no_mesh": {name: spread(values) for name, values in plain.items()},
            "control": judged("control", found, others),
            "tiers": {
                name: {"available": True, "ratios": judged(name, found, others)} if name in available
                else {"available": False, "why": refusals[name]}
                for name in options.tiers
            },
            "hooks": {name: hook_cost(lab, name) for name in available if name != "tunnel"},
            "connect": connect_latency(lab, server, options.rounds, "T1" in available),
            "revocation": revocation(lab, options.rounds) if "T1" in available else None,
        }


def obstacle(lab, tier):
    """Why there is nothing to measure, or None."""
    refusal = lab.configure(*TIERS[tier][1:3])
    if refusal:
        return f"this build refuses it: {refusal}"
    if tier != "T2":
        return None
    lab.start_daemon()
    fit = lab.metric("culvert_acceleration_available")
    lab.stop_daemon()
    return None if fit else f"this kernel is unfit for it:{lab.log_tail()}"


# Throughput


class Slice:
    """One measurement: rate, work done for each CPU second of all processes in the path, the time that 99 of 100
    round trips or connections did not exceed (none for bulk), CPU seconds."""

    def __init__(self, lab, metric, server, seconds, client="client", address=SERVER):
        _, words, rate, work = METRICS[metric]
        before = cpu_seconds(server) + (cpu_seconds(lab.daemon) if client == "client" else 0)
        report = lab.load(
            *words, "--to", f"{address}:{SINK if metric == 'bulk' else ECHO}", "--seconds", str(seconds),
            client=client)
        if client == "client" and metric.startswith("connect"):
            settle(lab.daemon)
        after = cpu_seconds(server) + (cpu_seconds(lab.daemon) if client == "client" else 0)
        self.cpu = after - before + report["cpu_seconds"]
        self.rate, self.efficiency, self.p99 = report[rate], report[work] / self.cpu, report.get("p99_us")


def settle(daemon):
    """Waits until the node proxy is done with what it does about connections that are over. Its share must not fall
    into the next slice; that it falls out of this one shows in the work of a CPU second alone, so slices of new
    connections are long against it."""
    used, since = cpu_seconds(daemon), time.monotonic()
    while daemon and time.monotonic() - since < 0.3:
        time.sleep(0.05)
        now = cpu_seconds(daemon)
        if now - used > 0.002:
            since = time.monotonic()
        used = now


class Visit:
    """Ratios of everything, slice by slice, and the share of the machine that others had meanwhile."""

    def __init__(self, lab, server, twin, seconds):
        self.rate = {metric: [] for metric in METRICS}
        self.efficiency = {metric: [] for metric in METRICS}
        self.p99 = {metric: [] for metric in METRICS}
        self.plain = {metric: [] for metric in METRICS}
        ours = 0
        machine = machine_cpu_seconds()
        for metric in METRICS:
            length = 3 * seconds if metric.startswith("connect") else seconds
            others = [Slice(lab, metric, twin, length, "plainclient", PLAIN_SERVER)]
            for _ in range(MORE_SLICES.get(metric, SLICES)):
                mine = Slice(lab, metric, server, length)
                others.append(Slice(lab, metric, twin, length, "plainclient", PLAIN_SERVER))
                a, b = others[-2:]
                self.rate[metric].append(2 * mine.rate / (a.rate + b.rate))
                self.efficiency[metric].append(2 * mine.efficiency / (a.efficiency + b.efficiency))
                if mine.p99:
                    self.p99[metric].append(2 * mine.p99 / (a.p99 + b.p99))
                ours += mine.cpu
            self.plain[metric] = [other.rate for other in others]
            ours += sum(other.cpu for other in others)
        busy, total = (now - then for now, then in zip(machine_cpu_seconds(), machine))
        self.others = max(0, busy - ours) / total


def rounds(lab, server, twin, options, available):
    """The rates of the twins, and of each tier and the control the ratios of rates and of efficiencies."""
    visits = {name: [] for name in [*available, "control"]}
    # First, since a namespace keeps something of a mesh: its look-ups of routes stay slower.
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}: control")
        visits["control"].append(Visit(lab, server, twin, options.seconds))
    for number in range(options.rounds):
        # Not always in the same order: a neighbour's effect must not stick to one tier.
        turn = number % max(1, len(available))
        for tier in available[turn:] + available[:turn]:
            say(f"round {number + 1} of {options.rounds}: {tier}")
            visits[tier].append(with_mesh(lab, tier, lambda: Visit(lab, server, twin, options.seconds)))
    every = [visit for found in visits.values() for visit in found]
    plain = {metric: [rate for visit in every for rate in visit.plain[metric]] for metric in METRICS}
    found = {
        name: {
            metric: {
                "rate": [ratio for visit in found for ratio in visit.rate[metric]],
                "efficiency": [ratio for visit in found for ratio in visit.efficiency[metric]],
                "p99": [ratio for visit in found for ratio in visit.p99[metric]],
            } for metric in METRICS
        } for name, found in visits.items()
    }
    return plain, found, statistics.median(visit.others for visit in every)


def with_mesh(lab, tier, body):
    """Runs `body` with the node proxy at this tier; fails when the connections did not take the tier's way."""
    _, mesh, workload, event = TIERS[tier]
    lab.configure(mesh, workload)
    lab.start_daemon()
    used = cpu_seconds(lab.daemon)
    lab.load("bulk", "--to", f"{SERVER}:{SINK}", "--seconds", "0.3")
    used = cpu_seconds(lab.daemon) - used
    if not lab.metric("culvert_capture_events_total", f'event="{event}"'):
        raise BenchFailure(f"{tier}: no connection was counted as {event}: this is not the tier{lab.log_tail()}")
    if event != "outbound_marked" and used > 0.1:
        raise BenchFailure(f"{tier}: the proxy used {used:.2f} s of CPU for a stream of 0.3 s: it is in the path")
    result = body()
    lab.stop_daemon()
    return result


# What one captured connection costs


def hook_cost(lab, tier):
    """Calls and nanoseconds of each of our programs per new connection, by the kernel's run statistics."""

    def count():
        connections = 3000
        with RunStatistics(lab.pins) as statistics_on:
            lab.load("connect", "--to", f"{SERVER}:{ECHO}", "--count", str(connections))
            spent = statistics_on.since()
        return {
            name: {"calls": calls / connections, "ns_per_call": ns / calls, "ns": ns / connections}
            for name, (calls, ns) in sorted(spent.items())
        }

    return with_mesh(lab, tier, count)


def connect_latency(lab, server, count, direct):
    """How long connect() takes, in ns, by way: medians of a batch. Nobody accepts meanwhile: the listeners' processes
    are stopped, so the time is the kernel's alone, from the call to the SYN-ACK's arrival.

    `own` is a listener in the client's own namespace, `nft` the same reached by an nft REDIRECT of the server's
    address, `captured` the node proxy's listener; all three stay on `lo`. `wire` is the server over the veth pairs
    without a mesh, `direct` the same at T1."""
    possible = {"own": True, "nft": shutil.which("nft"), "captured": True, "wire": True, "direct": direct}
    values = {name: [] for name, can in possible.items() if can}
    local = lab.serve("client", "--echo", f"0.0.0.0:{LOCAL}")

    def times(name, listener, address, port):
        listener.send_signal(signal.SIGSTOP)
        values[name].append(
            lab.load("times", "--to", f"{address}:{port}", "--count", str(CONNECTS_PER_BATCH))["p50_ns"])
        listener.send_signal(signal.SIGCONT)

    for number in range(count):
        say(f"connect() latency, {number + 1} of {count}")
        times("wire", server, SERVER, ECHO)
        if direct:
            with_mesh(lab, "T1", lambda: times("direct", server, SERVER, ECHO))
        times("own", local, CLIENT, LOCAL)
        if "nft" in values:
            redirect(lab, True)
            times("nft", local, SERVER, ECHO)
            redirect(lab, False)
        lab.configure(*TIERS["T0"][1:3])
        lab.start_daemon()
        times("captured", lab.daemon, SERVER, ECHO)
        # Its queue is full of connections that are over: nothing to drain.
        lab.stop_daemon(signal.SIGKILL)
    ratios = [("captured", "own"), ("nft", "own"), ("captured", "nft"), ("direct", "wire")]
    return {
        "ns": {name: spread(found) for name, found in values.items()},
        "ratios": {
            f"{a}/{b}": spread([x / y for x, y in zip(values[a], values[b])])
            for a, b in ratios if a in values and b in values
        },
    }


def revocation(lab, count):
    """Seconds from the change of the policy file until an open direct connection that it forbids is reset."""
    deny = f"""---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: closed, namespace: default}}
spec:
  action: DENY
  rules: [{{to: [{{operation: {{ports: ["{ECHO}"]}}}}]}}]
"""

    def once():
        victim = lab.spawn(
            lab.inside("client", [sys.executable, "-c", VICTIM, SERVER, str(ECHO)]), stdout=subprocess.PIPE)
        if victim.stdout.readline() != "ready\n":
            raise BenchFailure("the connection to be revoked was not made")
        changed = time.monotonic()
        lab.add_configuration(deny)
        reset = victim.stdout.readline()
        lab.stop(victim)
        if not reset:
            raise BenchFailure(f"a direct connection outlived the policy that forbids it{lab.log_tail()}")
        return float(reset) - changed

    times = []
    for number in range(count):
        say(f"revocation, {number + 1} of {count}")
        times.append(with_mesh(lab, "T1", once))
    return {"seconds": spread(times), "longest": max(times), "target": REVOKED_WITHIN,
            "met": max(times) <= REVOKED_WITHIN}


def redirect(lab, on):
    rules = f"""
        add table ip culvertbench
        add chain ip culvertbench output {{ type nat hook output priority -100; }}
        add rule ip culvertbench output ip daddr {SERVER} tcp dport {ECHO} redirect to :{LOCAL}
        """
    rules = rules if on else "delete table ip culvertbench"
    run("ip", "netns", "exec", lab.namespace("client"), "nft", "-f", "-", input=rules)


# Results


def spread(values):
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": median, "low": low, "high": high}


def judged(tier, found, others):
    result = {
        metric: spread(values["rate"]) | {"per_cpu_second": spread(values["efficiency"])}
        | ({"p99": spread(values["p99"])} if values["p99"] else {})
        for metric, values in found[tier].items()
    }
    for metric, target in TARGETS.get(tier, {}).items():
        reached = result[metric]["median"] / statistics.median(found["control"][metric]["rate"])
        result[metric] |= {
            "target": target, "over_control": reached, "met": None if others > TOLERATED else reached >= target}
    return result


def text(result):
    lines = [
        "",
        f"Two workloads of one node against direct TCP without a mesh: kernel {result['kernel']}, "
        f"{result['cpus']} CPUs, TCP with {result['congestion_control']}.",
        f"{result['rounds']} rounds of {SLICES} slices of {result['seconds']:g} s "
        f"({', '.join(f'{count} for {name}' for name, count in MORE_SLICES.items())}; new connections: of "
        f"{3 * result['seconds']:g} s); median of the ratios (quartiles).",
        ""]
    if result["others_share"] > TOLERATED:
        # With the proxy a path has more processes, and each gets a share of a machine that is contended for.
        lines += [
            f"Others had {result['others_share']:.0%} of the machine: rates scatter, tiers with a proxy come out too "
            "good, and no target is judged.", ""]
    return "\n".join(
        lines + table(result) + verdicts(result) + hook_lines(result) + connect_lines(result)
        + revocation_lines(result))


def table(result):
    columns = {"control": {"available": True, "ratios": result["control"]}} | result["tiers"]

    def rows(plain, ratio, metrics=METRICS, unit="/s"):
        for metric in metrics:
            label = METRICS[metric][0].replace("/s", unit)
            line = f"{label:<28}{plain(metric):>22}"
            for tier in columns.values():
                found = interval(ratio(tier["ratios"][metric]), 2) + "x" if tier["available"] else "not available"
                line += f"{found:>22}"
            yield line

    heading = "".join(f"{name:>22}" for name in columns)
    return [
        f"{'':<28}{'no mesh':>22}{heading}",
        *rows(lambda metric: interval(result["no_mesh"][metric]), lambda ratio: ratio),
        "", "The work of a second of CPU, client, server and proxy together; other load moves it less than the rates:",
        *rows(lambda metric: "1", lambda ratio: ratio["per_cpu_second"]),
        "", "The time that 99 of 100 round trips or connections took at most (lower is better):",
        *rows(lambda metric: "1", lambda ratio: ratio["p99"], [name for name in METRICS if name != "bulk"], ""), ""]


def verdicts(result):
    lines = ["Over the control, which is the same pairs without a mesh:"]
    for name, tier in result["tiers"].items():
        lines.append(f"{name:<8}{TIERS[name][0]}")
        if not tier["available"]:
            lines.append(f"        not available: {tier['why']}")
            continue
        for metric, ratio in tier["ratios"].items():
            if "target" in ratio:
                verdict = {True: "met", False: "MISSED", None: "not judged"}[ratio["met"]]
                lines.append(
                    f"        {METRICS[metric][0]:<28}at least {ratio['target']:g}x: "
                    f"{ratio['over_control']:.3f}x: {verdict}")
    return lines + [""]


def hook_lines(result):
    lines = ["What our programs cost per new connection (the kernel's run statistics):"]
    for tier, programs in result["hooks"].items():
        total = sum(program["ns"] for program in programs.values())
        lines.append(f"{tier:<8}{total:>8.0f} ns in all")
        for name, cost in programs.items():
            lines.append(f"        {name:<12}{cost['calls']:>6.2f} calls of {cost['ns_per_call']:>6.0f} ns")
    return lines + [""]


def connect_lines(result):
    lines = ["connect(), the kernel's part alone (nobody accepts meanwhile), µs:"]
    if "nft" not in result["connect"]["ns"]:
        lines.append("        no comparison with nft REDIRECT: there is no 'nft' (package nftables)")
    ways = {
        "own": "a listener of the own namespace, no capture", "nft": "the same, behind an nft REDIRECT",
        "captured": "captured, to the node proxy's listener", "wire": "the server over veth, no mesh",
        "direct": "the server over veth, T1"}
    for name, found in result["connect"]["ns"].items():
        micro = {key: value / 1e3 for key, value in found.items()}
        lines.append(f"        {ways[name]:<46}{interval(micro, 1):>22}")
    for name, found in result["connect"]["ratios"].items():
        lines.append(f"        {name:<46}{interval(found, 2) + 'x':>22}")
    return lines


def revocation_lines(result):
    found = result["revocation"]
    if not found:
        return []
    milli = {key: value * 1e3 for key, value in found["seconds"].items()}
    return ["", "From the change of a policy file to the reset of a direct connection that it forbids, ms: "
            f"{interval(milli)}, longest {found['longest'] * 1e3:.0f}: "
            f"at most {found['target'] * 1e3:.0f}: {'met' if found['met'] else 'MISSED'}"]


def interval(found, digits=None):
    if digits is None:
        digits = 0 if found["median"] >= 100 else 1
    return f"{found['median']:.{digits}f} ({found['low']:.{digits}f}–{found['high']:.{digits}f})"
