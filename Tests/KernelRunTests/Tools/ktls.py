"""Whether this kernel encrypts TLS 1.3 records itself, shown by doing it: prints one line, `works` or what failed.

One connection over loopback: the sender gets a key, so the receiver first sees a record of ciphertext; then the receiver
gets the key as well and reads the words. Numbers are those of linux/tls.h and linux/tcp.h.
"""

import os
import socket
import struct
import sys

TCP_ULP, SOL_TLS, TLS_TX, TLS_RX = 31, 282, 1, 2
TLS_1_3, AES_GCM_128 = 0x0304, 51

try:
    listener = socket.create_server(("127.0.0.1", 0))
    sender = socket.create_connection(listener.getsockname(), timeout=30)
    receiver, _ = listener.accept()
    receiver.settimeout(30)
    step = "TCP_ULP"
    for end in (sender, receiver):
        end.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
    # struct tls12_crypto_info_aes_gcm_128: version, cipher, iv, key, salt, record number.
    secret = struct.pack("HH8s16s4s8s", TLS_1_3, AES_GCM_128, os.urandom(8), os.urandom(16), os.urandom(4), bytes(8))
    step = "TLS_TX"
    sender.setsockopt(SOL_TLS, TLS_TX, secret)
    words = b"through the kernel"
    sender.sendall(words)
    step = "the record"
    record = receiver.recv(4096, socket.MSG_PEEK)
    # Application data of TLS 1.2 to the eye: header 5, the words, content type 1, tag 16.
    if record[:5] != bytes([23, 3, 3, 0, len(words) + 17]) or words in record:
        raise OSError(f"{record!r} is no record")
    step = "TLS_RX"
    receiver.setsockopt(SOL_TLS, TLS_RX, secret)
    step = "reading"
    if receiver.recv(4096) != words:
        raise OSError("other words arrived")
    print("works")
except OSError as error:
    print(f"{step}: {error}")
    sys.exit(1)
