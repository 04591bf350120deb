"""A machine of its own for the control plane, as a network namespace, and a wire to it that can swallow every packet.

There are two ways between the namespace and ours: one is for the servers and for people, and always whole. The other leads
through a router, a third namespace, and is for the planes. Cut, the router drops what it should forward: nobody is told, nothing is
refused, and every interface stays up. Needs root and iproute2; touches nothing but what it made.
"""

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache


def ip(*arguments: str) -> None:
    """Run `ip`; raise with what it said when it fails."""
    done = subprocess.run([ip_path(), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def ip_path() -> str:
    """Return where `ip` is."""
    path = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    assert path is not None
    return path


@cache
def why_no_namespaces() -> str | None:
    """Say why there can be no network of our own here; None when there can."""
    if os.geteuid() != 0:
        return "making a network namespace needs root"
    if shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
        return "ip is missing: apt-get install iproute2"
    try:
        with Network().made():
            return None
    except OSError as error:
        return f"no network can be made here: {error}"


class Network:
    """The namespace of the control plane, and the two ways to it."""

    def __init__(self) -> None:
        number = random.randrange(1 << 24)
        self.namespace, self._router = f"hse-{number:06x}", f"hse-{number:06x}-router"
        # Four networks of four addresses each, of a range that is used for tests of networks only.
        self._prefix = f"198.18.{number % 256}"
        self._name = f"h{number:06x}"
        self.our_address, self.their_address = f"{self._prefix}.1", f"{self._prefix}.2"
        self.node_address, self._caller_address = f"{self._prefix}.5", f"{self._prefix}.10"

    @property
    def wrapper(self) -> list[str]:
        """What makes a command run in the namespace."""
        return [ip_path(), "netns", "exec", self.namespace]

    @contextlib.contextmanager
    def made(self) -> Iterator["Network"]:
        """Have it while the block runs."""
        with contextlib.ExitStack() as stack:
            for namespace in (self.namespace, self._router):
                ip("netns", "add", namespace)
                # The interfaces in it, and their other ends, go with it.
                stack.callback(ip, "netns", "del", namespace)
                ip("-n", namespace, "link", "set", "lo", "up")
            self._connect(("a", None, self.our_address), ("b", self.namespace, self.their_address))
            self._connect(("c", None, self.node_address), ("d", self._router, f"{self._prefix}.6"))
            self._connect(("e", self._router, f"{self._prefix}.9"), ("f", self.namespace, self._caller_address))
            ip("route", "add", f"{self._prefix}.8/30", "via", f"{self._prefix}.6")
            ip("-n", self.namespace, "route", "add", f"{self._prefix}.4/30", "via", f"{self._prefix}.9")
            forward = [ip_path(), "netns", "exec", self._router, "tee", "/proc/sys/net/ipv4/ip_forward"]
            subprocess.run(forward, input=b"1", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
            yield self

    def _connect(self, *ends: tuple[str, str | None, str]) -> None:
        (first, first_place, _), (second, second_place, _) = ends
        names = [f"{self._name}{first}", f"{self._name}{second}"]
        ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
        for name, place in zip(names, (first_place, second_place), strict=True):
            if place is not None:
                ip("link", "set", name, "netns", place)
        for name, (_, place, address) in zip(names, ends, strict=True):
            inside = [] if place is None else ["-n", place]
            ip(*inside, "address", "add", f"{address}/30", "dev", name)
            ip(*inside, "link", "set", name, "up")

    def cut(self) -> None:
        """From now on the router swallows what goes between the planes, in either direction."""
        for address in (self.node_address, self._caller_address):
            ip("-n", self._router, "route", "add", "blackhole", f"{address}/32")

    def heal(self) -> None:
        """Forward again."""
        for address in (self.node_address, self._caller_address):
            ip("-n", self._router, "route", "del", "blackhole", f"{address}/32")
