"""Ports for servers that tests start."""

import socket


def free_ports(count: int) -> list[int]:
    """Ports free at this moment; all are held until the last is known, so that they differ."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in held]
    for listener in held:
        listener.close()
    return ports
