"""Who receives webhooks in tests: a real HTTP server that believes nothing that is not signed, and drops what it has had."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_" + "A" * 32
BODY_BYTES_MAX = 64 * 1024


@dataclass
class Receiver:
    """What came in. `messages` has each id once, `num_requests` counts all that were signed.

    `answers` are given instead of 204, one a request; `before_answer` is called when a request was read.
    """

    url: str = ""
    messages: dict[str, dict[str, Any]] = field(default_factory=dict)
    num_requests: dict[str, int] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    before_answer: Callable[[], None] = lambda: None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, headers: dict[str, str], body: bytes) -> int:
        """What a request is answered with."""
        try:
            content = Webhook(SECRET).verify(body, headers)
        except WebhookVerificationError as error:
            self.refused.append(str(error))
            return 401
        message_id = headers["webhook-id"]
        with self.lock:
            self.num_requests[message_id] = self.num_requests.get(message_id, 0) + 1
            status = self.answers.pop(0) if self.answers else 204
            if 200 <= status < 300:
                self.messages.setdefault(message_id, content)
        self.before_answer()
        return status


@contextmanager
def webhook_receiver(receiver: Receiver) -> Iterator[Receiver]:
    """Receive webhooks on a port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = min(int(self.headers["content-length"]), BODY_BYTES_MAX)
            status = receiver.take(
                {name.lower(): value for name, value in self.headers.items()}, self.rfile.read(length)
            )
            self.send_response(status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Nothing on the console."""

    class Server(ThreadingHTTPServer):
        daemon_threads = False

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that went away is what some tests do."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/notifications"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
