"""The data plane, compiled from `ingest-core/`. Only `hse ingest` and `hse journal` use it; no Rust thread touches Python."""

from typing import final

__all__ = ["Core", "inspect_journal", "repair_journal"]

@final
class Core:
    """Sockets, journal and drain of one ingest process. Started once, stopped once."""

    def __new__(cls, config_json: str) -> Core:
        """Check the configuration; raises ValueError naming every wrong field. Opens nothing yet."""

    def start(self) -> dict[str, int]:
        """Open journal and ports, and return the bound ports by name.

        hdp, ws, mqtt, device_http, ingest_http and grpc; where TLS is served also hdp_tls, wss, mqtt_tls and device_http_tls.
        """

    def request_stop(self) -> None:
        """Ask for the drain; returns at once, and may be called from a signal handler and more than once."""

    def wait(self, timeout_ms: int) -> bool:
        """Wait up to `timeout_ms` milliseconds without holding the interpreter; say whether the core has stopped."""

    def join(self) -> int:
        """Wait for the end and return the exit code: 0 when drained or kept in the journal, 70 when the journal failed."""

def inspect_journal(path: str) -> str:
    """Describe the journal in a directory as JSON, changing nothing; a core may be running on it."""

def repair_journal(path: str) -> str:
    """Give up what cannot be read of the journal in a directory, keep the rest, and tell which is which as JSON.

    Raises OSError when a core is running on it, or when it is beyond repair.
    """
