"""Writes into a node's map what a connect() under way during a change of policy would: a flow of the rules before.

    late_flow.py PINS SOURCE-ADDRESS DESTINATION-ADDRESS CLIENT-PORT SERVER-ADDRESS SERVER-PORT

The flow is from the workload of SOURCE-ADDRESS to the one of DESTINATION-ADDRESS, whatever addresses its tuple has.
"""
import ctypes
import os
import platform
import socket
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
CALL = {"x86_64": 321, "aarch64": 280}[platform.machine()]
LOOKUP, UPDATE, OPEN = 1, 2, 7


def bpf(command, attributes):
    room = ctypes.create_string_buffer(attributes.ljust(128, b"\0"))
    result = LIBC.syscall(CALL, command, room, 128)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def opened(path):
    name = ctypes.create_string_buffer(path.encode())
    return bpf(OPEN, struct.pack("=QII", ctypes.addressof(name), 0, 0))


def element(command, map_, key, value):
    bpf(command, struct.pack("=IIQQQ", map_, 0, ctypes.addressof(key), ctypes.addressof(value), 0))
    return value.raw


def address(text):
    return b"\0" * 10 + b"\xff\xff" + socket.inet_aton(text)


def main(pins, source, destination, client_port, server, server_port):
    def looked_up(name, key, size):
        room = ctypes.create_string_buffer(key, len(key))
        return element(LOOKUP, opened(f"{pins}/{name}"), room, ctypes.create_string_buffer(size))

    slots = [struct.unpack("=I", looked_up("endpoints", address(a), 4))[0] for a in (source, destination)]
    generation, _ = struct.unpack("=II", looked_up("control", struct.pack("=I", 0), 8))
    key = address(source) + address(server) + struct.pack("=HHI", int(client_port), int(server_port), 0)
    value = struct.pack("=QIIIHH", 1, *slots, generation - 1, 1, 0)
    element(UPDATE, opened(f"{pins}/flows"), ctypes.create_string_buffer(key, 40), ctypes.create_string_buffer(value, 24))
    print('{"ok": true}')


main(*sys.argv[1:])
