"""Disks that fill up, and disks that lose their power. Both need root."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from tests.faults.conditions import until

TOOLS = ("nbdkit", "nbdfuse", "losetup", "mkfs.ext4", "mount", "umount")


def run(*command: str | Path) -> str:
    """Run a command and return its output; raise with what it said when it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{command[0]} failed with {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()


def why_no_mount() -> str | None:
    """Say why this process cannot mount a file system; None when it can."""
    return None if os.geteuid() == 0 else "mounting a file system needs root"


def why_no_power_cut() -> str | None:
    """Say why the power cannot be cut here; None when it can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)}: apt-get install nbdkit libnbd-bin fuse3 e2fsprogs"
    if not Path("/dev/fuse").exists() or not Path("/dev/loop-control").exists():
        return "needs /dev/fuse and loop devices"
    return why_no_mount()


@contextlib.contextmanager
def small_disk(directory: Path, num_bytes: int) -> Iterator[Path]:
    """A tmpfs of a fixed size, mounted while the block runs."""
    directory.mkdir(parents=True)
    run("mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "hse-small-disk", directory)
    try:
        yield directory
    finally:
        run("umount", "--lazy", directory)


def fill(directory: Path) -> Path:
    """Take all the space that is left, and return the file that holds it."""
    path = directory / "filler"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    block = bytes(1 << 16)
    with contextlib.suppress(OSError):
        while os.write(descriptor, block):
            pass
    os.close(descriptor)
    return path


class PowerCutDisk:
    """An ext4 file system on a disk whose cache is volatile.

    nbdkit's cache filter holds every written block in memory-like storage until the file system asks for a flush; kill -9 of nbdkit
    loses all blocks that were not flushed, as a power cut does with a disk's cache.
    """

    def __init__(self, directory: Path, num_bytes: int = 256 << 20) -> None:
        self.directory = directory
        self.image = directory / "disk.img"
        self.exported = directory / "disk"
        self.mount_point = directory / "mnt"
        self.num_bytes = num_bytes
        self.loop: str | None = None
        self._nbdkit: subprocess.Popen[bytes] | None = None
        self._nbdfuse: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        """Make the image, its file system, and the places it is mounted at."""
        self.directory.mkdir(parents=True)
        self.mount_point.mkdir()
        self.exported.touch()
        with self.image.open("wb") as image:
            image.truncate(self.num_bytes)
        run("mkfs.ext4", "-q", "-F", self.image)

    def _spawn_nbdkit(self, socket: Path) -> None:
        socket.unlink(missing_ok=True)
        nbdkit: list[str | Path] = ["nbdkit", "--foreground", "--exit-with-parent", "--unix", socket, "--filter=cache"]
        self._nbdkit = subprocess.Popen([*nbdkit, "file", self.image, "cache=writeback"], stdin=subprocess.DEVNULL)

    def _spawn_nbdfuse(self, socket: Path) -> None:
        nbdfuse: list[str | Path] = ["nbdfuse", self.exported, "--unix", socket]
        with (self.directory / "nbdfuse.log").open("ab") as log:
            self._nbdfuse = subprocess.Popen(nbdfuse, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    async def power_on(self) -> None:
        """Attach and mount the disk as the last power cut left it."""
        socket = self.directory / "nbd.sock"
        self._spawn_nbdkit(socket)
        await until(socket.exists, "nbdkit listens")
        self._spawn_nbdfuse(socket)
        await until(self._is_exported, "nbdfuse shows the disk")
        self.loop = run("losetup", "--find", "--show", "--direct-io=on", self.exported)
        run("mount", "-t", "ext4", self.loop, self.mount_point)

    def _is_exported(self) -> bool:
        with contextlib.suppress(OSError):
            return self.exported.stat().st_size == self.num_bytes
        return False

    async def cut_power(self) -> None:
        """kill -9 of nbdkit: what was not flushed is gone. The stale mounts above it are taken away."""
        self.kill_server()
        await self._detach()

    def kill_server(self) -> None:
        """Only kill the disk; who uses it sees it fail."""
        if self._nbdkit is not None and self._nbdkit.poll() is None:
            self._nbdkit.send_signal(signal.SIGKILL)
            self._nbdkit.wait()

    async def _detach(self) -> None:
        for command in (["umount", "--lazy", self.mount_point], ["losetup", "--detach", self.loop or ""]):
            with contextlib.suppress(OSError):
                run(*command)
        self.loop = None
        with contextlib.suppress(OSError):
            run("umount", "--lazy", self.exported)
        nbdfuse = self._nbdfuse
        if nbdfuse is not None:
            if nbdfuse.poll() is None:
                nbdfuse.send_signal(signal.SIGKILL)
            await until(lambda: nbdfuse.poll() is not None, "nbdfuse is gone")
        self._nbdkit = self._nbdfuse = None

    @contextlib.asynccontextmanager
    async def in_use(self) -> AsyncIterator["PowerCutDisk"]:
        """Create and mount the disk; leave no process, mount or loop device behind."""
        self.create()
        await self.power_on()
        try:
            yield self
        finally:
            await self.cut_power()
