"""Settings become the jobs of a worker."""

import asyncio
import logging
import threading
from dataclasses import dataclass

import sqlalchemy as sa
from prometheus_client import start_http_server

from hse.adapters.dispatch.dispatcher import Dispatch
from hse.adapters.ingest import NodeCredentials
from hse.adapters.mail import FileMailer, LetterNotSent, Mailer, SmtpMailer
from hse.adapters.postgres.mail import ATTEMPTS_MAX, Claimed, claim_letter, letter_of, mark_not_sent, mark_sent
from hse.adapters.sealing import Sealer, WrongKey
from hse.adapters.worker_metrics import WorkerMetrics
from hse.settings import MAIL_DIRECTORY, Settings, data_dir_of

MAIL_SECONDS = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Postman:
    """Sends the letters that are due. Any number may work at once."""

    engine: sa.Engine
    sealer: Sealer
    mailer: Mailer

    def deliver_until(self, stopping: threading.Event) -> None:
        """Look for letters every second, until told to stop; a database that is away is waited for."""
        while not stopping.wait(MAIL_SECONDS):
            try:
                while not stopping.is_set() and self.deliver_one():
                    pass
            except sa.exc.DBAPIError as error:
                logger.warning("letters wait for the database: %s", type(error).__name__)
            except Exception:
                # A defect at one letter, which is put off already, must not keep the others.
                logger.exception("a letter could not be handled")

    def deliver_one(self) -> bool:
        """Try one letter; False when none was due, or the attempt failed and the next one may wait."""
        with self.engine.begin() as connection:
            claimed = claim_letter(connection)
        if claimed is None:
            return False
        refusal = self._send(claimed)
        with self.engine.begin() as connection:
            if refusal is None:
                mark_sent(connection, claimed)
            else:
                mark_not_sent(connection, claimed, str(refusal), is_final=refusal.is_final)
        return refusal is None

    def _send(self, claimed: Claimed) -> LetterNotSent | None:
        if claimed.attempts > ATTEMPTS_MAX:
            return LetterNotSent("the worker died at every attempt", is_final=True)
        try:
            asyncio.run(self.mailer.send(letter_of(claimed, self.sealer)))
        except LetterNotSent as refusal:
            return refusal
        except WrongKey as error:
            return LetterNotSent(str(error))
        logger.info("letter sent: kind=%s id=%s attempts=%s", claimed.row.kind, claimed.letter_id, claimed.attempts)
        return None


def compose_postman(settings: Settings, engine: sa.Engine) -> Postman | None:
    """The one who sends the letters; None, with a warning, where the key that they are sealed with is not set."""
    if settings.secret_key is None:
        logger.warning("HSE_SECRET_KEY is not set: this worker sends no mail")
        return None
    return Postman(engine=engine, sealer=Sealer(settings.secret_key), mailer=compose_mailer(settings))


def compose_mailer(settings: Settings) -> Mailer:
    """SMTP where a server is set, else files below the data directory."""
    if settings.smtp_url is not None:
        return SmtpMailer(settings.smtp_url, settings.mail_from)
    return FileMailer(data_dir_of(settings) / MAIL_DIRECTORY, settings.mail_from)


def compose_dispatch(settings: Settings, engine: sa.Engine, metrics: WorkerMetrics) -> Dispatch | None:
    """What hands commands to devices; None, with a warning, where no node can be called."""
    credentials = node_credentials(settings)
    if settings.database_url is None or credentials is None:
        logger.warning("HSE_SERVICE_TOKEN is not set: this worker sends no commands to devices")
        return None
    if settings.redis_url is None and not settings.ingest_nodes:
        logger.warning("neither HSE_REDIS_URL nor HSE_INGEST_NODES is set: commands to devices find no node")
    return Dispatch(
        engine=engine,
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        fixed_nodes=settings.ingest_nodes,
        credentials=credentials,
        metrics=metrics,
        sealer=None if settings.secret_key is None else Sealer(settings.secret_key),
    )


def node_credentials(settings: Settings) -> NodeCredentials | None:
    """What ingest nodes are shown; None when there is nothing to show."""
    certificate, key = settings.grpc_client_certificate_path, settings.grpc_client_key_path
    if settings.service_token is None and certificate is None:
        return None
    authority = settings.grpc_authority_path
    return NodeCredentials(
        token=settings.service_token,
        authority=None if authority is None else authority.read_bytes(),
        certificate=None if certificate is None else certificate.read_bytes(),
        key=None if key is None else key.read_bytes(),
    )


def serve_metrics(settings: Settings, metrics: WorkerMetrics) -> None:
    """Tell who asks on the worker's port what it has counted; where the port is set."""
    if settings.worker_http_port is not None:
        start_http_server(settings.worker_http_port, addr=settings.bind_host, registry=metrics.registry)
