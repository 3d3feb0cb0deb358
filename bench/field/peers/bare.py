"""The bare loop: it writes each event to every socket, and does nothing else. No server can do less."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from resource import RLIMIT_NOFILE, getrlimit, setrlimit

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


def main(port: int) -> None:
    hard = getrlimit(RLIMIT_NOFILE)[1]
    setrlimit(RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    listener.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    streams: dict[int, socket.socket] = {}
    log: deque[bytes] = deque(maxlen=1000)
    number = 0
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(connection, selectors.EVENT_READ)
                continue
            connection = key.fileobj  # type: ignore[assignment]
            try:
                request = connection.recv(65536)
            except OSError:
                request = b""
            if not request:
                selector.unregister(connection)
                streams.pop(connection.fileno(), None)
                connection.close()
            elif request.startswith(b"GET /events"):
                place = request.lower().partition(b"last-event-id: ")[2].partition(b"\r\n")[0]
                missed = b"".join(list(log)[int(place) - number :]) if place and int(place) < number else b""
                write(connection.fileno(), HEAD + missed)
                streams[connection.fileno()] = connection
            else:
                head, _, body = request.partition(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                connection.setblocking(True)
                while len(body) < length:
                    body += connection.recv(65536)
                connection.setblocking(False)
                number += 1
                block = b"id: %d\ndata: %b\n\n" % (number, body)
                chunk = b"%x\r\n%b\r\n" % (len(block), block)
                log.append(chunk)
                for descriptor in streams:
                    write(descriptor, chunk)
                connection.send(DONE)


def write(descriptor: int, data: bytes) -> None:
    """Write everything; wait for a slow reader."""
    written = 0
    while written < len(data):
        try:
            written += os.write(descriptor, data[written:])
        except BlockingIOError:
            time.sleep(0.001)
        except OSError:
            return


if __name__ == "__main__":
    main(int(sys.argv[1]))
