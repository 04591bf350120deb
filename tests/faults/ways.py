"""The ways in which a device may speak to the core: a transport with a form."""

from tests.faults.certificates import trusting
from tests.faults.core import Core
from tests.faults.wire import Credentials, Form, Peer


class Way:
    """One transport with one form."""

    def __init__(self, core: Core, form: Form, *, is_tls: bool) -> None:
        self.core = core
        self.form = form
        self.tls = trusting(core.data_dir.parent) if is_tls else None
        self.port = core.tls_port if is_tls else core.port

    async def dial(self) -> Peer:
        """Connect."""
        return await Peer.dial(self.port, self.form, self.tls)

    async def join(self, device: Credentials, epoch: int = 1) -> Peer:
        """Connect and be welcomed."""
        return await Peer.join(self.port, device, epoch=epoch, form=self.form, tls=self.tls)
