"""A real browser that looks at a page: Chromium without a window, spoken to over its DevTools protocol."""

import asyncio
import itertools
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

SECONDS_MAX = 60.0
DEVTOOLS = re.compile(rb"DevTools listening on (ws://\S+)")
MESSAGE_BYTES_MAX = 1 << 26
FLAGS = [
    "--headless=new",
    "--remote-debugging-port=0",
    # In containers tests run as root, for whom there is no sandbox, and where shared memory is small.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    # It talks to nobody but the page's host.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
]


def chromium() -> str | None:
    """The browser; None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass
class Page:
    """A tab. `asked` is every address that it asked for, `complaints` what its console says is wrong."""

    connection: ClientConnection
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _answers: dict[int, "asyncio.Future[Any]"] = field(default_factory=dict)

    async def listen(self) -> None:
        """Take what the browser says, until it is closed."""
        async for message in self.connection:
            said = json.loads(message)
            if (answer := self._answers.pop(said.get("id", -1), None)) is not None:
                answer.set_result(said)
            match said.get("method"):
                case "Network.requestWillBeSent":
                    self.asked.append(said["params"]["request"]["url"])
                case "Log.entryAdded" if said["params"]["entry"]["level"] in ("warning", "error"):
                    self.complaints.append(json.dumps(said["params"]["entry"]))
                case "Runtime.exceptionThrown":
                    self.complaints.append(json.dumps(said["params"]))

    async def command(self, method: str, **parameters: Any) -> Any:
        """Have the browser do something; what it answers."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self.connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        said = await asyncio.wait_for(answer, SECONDS_MAX)
        assert "error" not in said, said
        return said["result"]

    async def open(self, address: str) -> None:
        """Go to an address."""
        for domain in ("Network", "Log", "Runtime", "Page"):
            await self.command(f"{domain}.enable")
        await self.command("Page.navigate", url=address)

    async def value(self, script: str) -> Any:
        """What an expression of the page is."""
        found = await self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, script: str) -> Any:
        """Wait until an expression of the page is true; what it is then."""
        try:
            async with asyncio.timeout(SECONDS_MAX):
                while not (found := await self.value(script)):  # noqa: ASYNC110 (pages tell of no event for it)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"still not: {script}; the console says {self.complaints}") from None
        return found


@asynccontextmanager
async def browsing(home: Path) -> AsyncIterator[Page]:
    """A tab of a browser that keeps what it must below `home`."""
    program = chromium()
    assert program is not None
    process = await asyncio.create_subprocess_exec(
        program, *FLAGS, f"--user-data-dir={home}", "about:blank", stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        while (found := DEVTOOLS.search(await asyncio.wait_for(process.stderr.readline(), SECONDS_MAX))) is None:
            pass
        draining = asyncio.create_task(process.stderr.read())
        async with tab_of(found.group(1).decode()) as page:
            yield page
        draining.cancel()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def tab_of(browser_address: str) -> AsyncIterator[Page]:
    """The browser's first tab, over a connection of its own."""
    async with connect(browser_address) as browser:
        await browser.send(json.dumps({"id": 0, "method": "Target.getTargets"}))
        while (said := json.loads(await browser.recv())).get("id") != 0:
            pass
    (target,) = [one for one in said["result"]["targetInfos"] if one["type"] == "page"]
    address = f"{browser_address.partition('/devtools/')[0]}/devtools/page/{target['targetId']}"
    async with connect(address, max_size=MESSAGE_BYTES_MAX) as connection:
        page = Page(connection)
        listening = asyncio.create_task(page.listen())
        yield page
        listening.cancel()
