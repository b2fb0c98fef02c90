"""Becomes the program given, with bpf() denied as a strict container denies it: every call fails with EPERM.

usage: without_bpf.py PROGRAM ARGUMENT...
"""

import ctypes
import os
import platform
import struct
import sys

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
BPF_CALL = {"x86_64": 321, "aarch64": 280}[platform.machine()]

# struct sock_filter: load the call's number; equal to bpf's: EPERM (1); else: allow.
FILTER = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in [(0x20, 0, 0, 0), (0x15, 0, 1, BPF_CALL), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
)


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def check(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), "prctl")


libc = ctypes.CDLL(None, use_errno=True)
check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(Program(len(FILTER) // 8, FILTER)), 0, 0))
os.execv(sys.argv[1], sys.argv[1:])
