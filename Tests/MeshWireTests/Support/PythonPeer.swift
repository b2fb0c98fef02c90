/// The other side of HTTP2InteropTests: Python's h2 over the socket on descriptor 0.
/// Arguments: role, number of streams, bytes a stream.
///
/// client: opens the streams, sends a pattern on each, expects it back, and half-closes.
/// server: answers CONNECT with 200 and echoes every stream until it ends; answers an authority with port 9 with 503.
/// Prints one line a fact that the test checks, and ends with the word done.
let pythonPeer = #"""
    import socket
    import sys

    import h2.config
    import h2.connection
    import h2.events
    import h2.settings

    role, streams, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    sock = socket.socket(fileno=0)
    config = h2.config.H2Configuration(client_side=role == "client", header_encoding="utf-8")
    conn = h2.connection.H2Connection(config)
    conn.initiate_connection()
    sock.sendall(conn.data_to_send())
    outgoing = {}
    ended = set()
    received = {}
    open_streams = set()


    def say(text):
        print(text, flush=True)


    def push(stream):
        """Sends what the windows allow, then the end where it is due."""
        data = outgoing.get(stream)
        if data is None:
            return
        while data:
            room = min(conn.local_flow_control_window(stream), conn.max_outbound_frame_size, len(data))
            if room <= 0:  # negative after SETTINGS that shrink it
                return
            conn.send_data(stream, bytes(data[:room]))
            del data[:room]
        if stream in ended:
            conn.end_stream(stream)
            outgoing.pop(stream)


    def pump():
        data = sock.recv(65536)
        if not data:
            return False
        for event in conn.receive_data(data):
            handle(event)
        for stream in list(outgoing):
            push(stream)
        sock.sendall(conn.data_to_send())
        return True


    def handle(event):
        if isinstance(event, h2.events.RequestReceived):
            headers = dict(event.headers)
            assert headers[":method"] == "CONNECT" and ":scheme" not in headers and ":path" not in headers, headers
            say("baggage %s" % headers.get("baggage"))
            if headers[":authority"].endswith(":9"):
                conn.send_headers(event.stream_id, [(":status", "503")], end_stream=True)
                return
            conn.send_headers(event.stream_id, [(":status", "200"), ("baggage", "service.name=python")])
            outgoing[event.stream_id] = bytearray()
        elif isinstance(event, h2.events.ResponseReceived):
            say("status %s" % dict(event.headers)[":status"])
        elif isinstance(event, h2.events.DataReceived):
            received.setdefault(event.stream_id, bytearray()).extend(event.data)
            conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if role == "server" and event.stream_id in outgoing:
                outgoing[event.stream_id].extend(event.data)
        elif isinstance(event, h2.events.StreamEnded):
            if role == "server":
                ended.add(event.stream_id)
            else:
                open_streams.discard(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            say("reset %d" % event.error_code)
            outgoing.pop(event.stream_id, None)
            open_streams.discard(event.stream_id)
        elif isinstance(event, h2.events.ConnectionTerminated):
            say("goaway %d" % event.error_code)
        elif isinstance(event, h2.events.PingAckReceived):
            say("pong")
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            code = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
            if code in event.changed_settings:
                say("window %d" % event.changed_settings[code].new_value)


    if role == "client":
        sent = {}
        conn.ping(b"culvert!")
        for index in range(streams):
            stream = conn.get_next_available_stream_id()
            target = "[::1]:%d" % (8000 + index)
            headers = [(":method", "CONNECT"), (":authority", target), ("baggage", "service.name=python")]
            conn.send_headers(stream, headers)
            sent[stream] = bytes((stream * 7 + offset * 13) & 255 for offset in range(size))
            outgoing[stream] = bytearray(sent[stream])
            ended.add(stream)
            open_streams.add(stream)
        for stream in list(outgoing):
            push(stream)
        sock.sendall(conn.data_to_send())
        while open_streams and pump():
            pass
        for stream, data in sent.items():
            assert received.get(stream, b"") == data, "stream %d" % stream
        say("equal %d" % len(sent))
        conn.close_connection()
        sock.sendall(conn.data_to_send())
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass
    else:
        while pump():
            pass
    say("done")
    """#
