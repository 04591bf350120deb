"""The ways in which a device may speak to the core: a transport with a form."""

from tests.faults.certificates import trusting
from tests.faults.core import Core
from tests.faults.websocket import WebSocketPeer
from tests.faults.wire import Credentials, Form, Peer


class Way:
    """One transport, `tcp`, `tls`, `ws` or `wss`, with one form."""

    def __init__(self, core: Core, form: Form, transport: str = "tcp") -> None:
        self.core = core
        self.form = form
        self.tls = trusting(core.data_dir.parent) if transport in ("tls", "wss") else None
        ports = {"tcp": core.port, "tls": core.tls_port, "ws": core.ws_port, "wss": core.wss_port}
        self.port = ports[transport]
        self.peer = WebSocketPeer if transport in ("ws", "wss") else Peer

    async def dial(self) -> Peer:
        """Connect."""
        return await self.peer.dial(self.port, self.form, self.tls)

    async def join(self, device: Credentials, epoch: int = 1) -> Peer:
        """Connect and be welcomed."""
        return await self.peer.join(self.port, device, epoch=epoch, form=self.form, tls=self.tls)
