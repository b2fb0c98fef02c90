"""The kernel's own account of how long BPF programs run."""
import ctypes
import os
import platform

BPF_OBJ_GET, BPF_PROG_GET_FD_BY_ID, BPF_ENABLE_STATS = 7, 13, 32
CALL = {"x86_64": 321, "aarch64": 280}


def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, 128)
    result = ctypes.CDLL(None, use_errno=True).syscall(CALL[platform.machine()], command, buffer, len(buffer))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def facts(descriptor):
    """What the kernel tells of a BPF descriptor."""
    with open(f"/proc/self/fdinfo/{descriptor}") as file:
        return dict(line.split(":", 1) for line in file.read().splitlines() if ":" in line)


class RunStatistics:
    """Counts while it is entered: the kernel stops when the descriptor closes, so nothing stays switched on."""

    def __init__(self, pins):
        self.pins = pins

    def __enter__(self):
        self.switch = bpf(BPF_ENABLE_STATS, (0).to_bytes(4, "little"))
        self.before = self.read()
        return self

    def __exit__(self, *_):
        os.close(self.switch)

    def read(self):
        """(calls, nanoseconds) of each program behind a pinned link, by the pin's name."""
        result = {}
        for folder, _, names in os.walk(self.pins):
            for name in names:
                path = ctypes.create_string_buffer(f"{folder}/{name}".encode())
                link = bpf(BPF_OBJ_GET, ctypes.addressof(path).to_bytes(8, "little"))
                identifier = facts(link).get("prog_id") if "link_type" in facts(link) else None
                os.close(link)
                if identifier is None:
                    continue
                program = bpf(BPF_PROG_GET_FD_BY_ID, int(identifier).to_bytes(4, "little"))
                told = facts(program)
                os.close(program)
                result[name] = (int(told["run_cnt"]), int(told["run_time_ns"]))
        return result

    def since(self):
        """What was run since entering: {pin: (calls, nanoseconds)}."""
        now = self.read()
        changes = {name: tuple(a - b for a, b in zip(now[name], self.before.get(name, (0, 0)))) for name in now}
        return {name: change for name, change in changes.items() if change[0]}
