"""Free TCP ports."""

import contextlib
import random
import socket
from collections import deque

from hse.embedded.account import EmbeddedServerError

# Below the range from which Linux takes the ports of outgoing connections, so that none of these takes one of ours
# between the choice and the bind.
FIRST_PORT, LAST_PORT = 15_000, 32_000
ATTEMPTS_MAX = 1_000
# A port that was given out may be bound at any time, or bound again: it is not soon given to somebody else.
_given: deque[int] = deque(maxlen=1_000)


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Say whether a server could bind `port` now."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Return `count` different free ports."""
    chosen: set[int] = set()
    for _ in range(ATTEMPTS_MAX):
        if len(chosen) == count:
            break
        port = random.randint(FIRST_PORT, LAST_PORT)  # noqa: S311
        # A server may listen on all addresses: the port has to be free on all of them.
        if port not in chosen and port not in _given and is_free(port, "0.0.0.0"):  # noqa: S104
            chosen.add(port)
    if len(chosen) < count:
        raise EmbeddedServerError(f"no {count} free ports between {FIRST_PORT} and {LAST_PORT}")
    _given.extend(chosen)
    return sorted(chosen)
