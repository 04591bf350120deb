"""What one process holds open to hear the ingest nodes."""

from dataclasses import dataclass

from hse.adapters.ingest import IngestNodes
from hse.adapters.nodes import NodeDirectory


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLink:
    """Which nodes there are, and the channels to them. Made, used and closed inside one event loop."""

    directory: NodeDirectory
    ingest: IngestNodes

    async def close(self) -> None:
        """Close the connections."""
        await self.ingest.close()
        await self.directory.close()
