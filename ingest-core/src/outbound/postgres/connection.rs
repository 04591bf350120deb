//! One connection to PostgreSQL, made when needed and dropped at the first doubt.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{error::Elapsed, timeout};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Socket, error::SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::warn;

use crate::config::DATABASE_DEADLINE;
use crate::pipeline::ports::SinkError;
use crate::tls::{ClientTls, TlsError};

/// Journal space is freed when COMMIT returns, so COMMIT must mean that the rows are on disk; and a role's defaults must
/// not cut a large batch short, for ever. A lock that the server waits for it gives up before `DATABASE_DEADLINE`, when we do:
/// else each new try would leave a session behind.
const OPTIONS: &str = "-c synchronous_commit=on -c statement_timeout=0 -c lock_timeout=50s \
                       -c idle_in_transaction_session_timeout=120000 -c timezone=UTC";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that vanished is noticed within about this, whatever TCP would wait; by the server, too: in the middle of a COPY only
/// TCP tells it, while that holds the locks of the node's cursor and its devices.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const PROBE_AFTER: Duration = Duration::from_secs(10);
const PROBE_EVERY: Duration = Duration::from_secs(5);
const PROBES_MAX: u32 = 3;

/// How to reach the database, with settings that the promises need.
#[derive(Clone)]
pub struct Database {
    config: Config,
    tls: MakeRustlsConnect,
}

#[derive(Debug, thiserror::Error)]
pub enum DatabaseUrlError {
    #[error("database_url is not a libpq URL: {0}")]
    Url(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Database {
    /// # Errors
    /// [`DatabaseUrlError`] when the URL does not parse.
    pub fn new(url: &str) -> Result<Self, DatabaseUrlError> {
        let mut config: Config = url.parse()?;
        let of_server = format!(
            "-c tcp_keepalives_idle={} -c tcp_keepalives_interval={} -c tcp_keepalives_count={PROBES_MAX} -c tcp_user_timeout={}",
            PROBE_AFTER.as_secs(),
            PROBE_EVERY.as_secs(),
            SILENCE_MAX.as_millis(),
        );
        let options = [
            config.get_options().unwrap_or_default(),
            OPTIONS,
            &of_server,
        ]
        .join(" ");
        config
            .application_name("hse-ingest")
            .options(&options)
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives_idle(PROBE_AFTER)
            .keepalives_interval(PROBE_EVERY)
            .keepalives_retries(PROBES_MAX)
            .tcp_user_timeout(SILENCE_MAX);
        Ok(Self {
            config,
            tls: MakeRustlsConnect::new(ClientTls::default().config()?),
        })
    }

    /// Connects; what the server says beside answers goes to `notices`.
    ///
    /// # Errors
    /// [`SinkError`] when the server is away or refuses us.
    pub async fn connect(
        &self,
        notices: impl FnMut(AsyncMessage) + Send + 'static,
    ) -> Result<Client, SinkError> {
        let (client, connection) = self
            .config
            .connect(self.tls.clone())
            .await
            .map_err(classify)?;
        tokio::spawn(poll(connection, notices));
        Ok(client)
    }
}

/// Drives a connection until its client is dropped or it breaks; the client's calls report the break.
async fn poll<T>(mut connection: Connection<Socket, T>, mut notices: impl FnMut(AsyncMessage))
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        match std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(message)) => notices(message),
            Some(Err(error)) => {
                warn!(error = describe(&error), "database connection ended");
                return;
            }
            None => return,
        }
    }
}

/// Logs what the server remarks.
pub fn log_notice(message: AsyncMessage) {
    if let AsyncMessage::Notice(notice) = message {
        warn!(notice = %notice, "database remarks");
    }
}

/// Sorts a failure into what waiting mends and what an operator must mend.
#[must_use]
pub fn classify(error: tokio_postgres::Error) -> SinkError {
    let Some(db) = error.as_db_error() else {
        return SinkError::Away(describe(&error));
    };
    let class = db.code().code().get(..2).unwrap_or_default();
    // Wrong password or rights, missing table or function, a refusal where the data gives no cause for one: schema and
    // roles, not the network. A missing partition is made at the next attempt.
    let is_schema = matches!(class, "22" | "23" | "28" | "3D" | "42" | "54");
    if is_schema && !is_missing_partition(&error) {
        SinkError::Misconfigured(format!("{} ({})", db.message(), db.code().code()))
    } else {
        SinkError::Away(format!("{} ({})", db.message(), db.code().code()))
    }
}

/// tokio-postgres names only the kind of a failure; its causes say what happened.
#[must_use]
pub fn describe(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Codes of the same classes that come of a table that is not as the migrations made it: a column whose type was changed,
/// a new column that must not be null. Every row would be refused, and none for its content.
const NOT_OF_CONTENT: [&str; 4] = ["22P03", "22P04", "23502", "54001"];

/// Does the database refuse the data itself (classes 22, 23 and 54), so that other rows may pass?
#[must_use]
pub fn refuses_content(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|db| {
        let class = db.code().code().get(..2).unwrap_or_default();
        let is_of_content = !NOT_OF_CONTENT.contains(&db.code().code());
        matches!(class, "22" | "23" | "54") && is_of_content && !is_missing_partition(error)
    })
}

/// A partition that was there is gone (retention ran). PostgreSQL reports it as a check without a constraint's name.
#[must_use]
pub fn is_missing_partition(error: &tokio_postgres::Error) -> bool {
    error
        .as_db_error()
        .is_some_and(|db| *db.code() == SqlState::CHECK_VIOLATION && db.constraint().is_none())
}

/// Bounds a conversation with the database: COPY ignores the server's own timeouts.
///
/// # Errors
/// [`SinkError::Deadline`], or what `work` says.
pub async fn within_deadline<T>(
    work: impl Future<Output = Result<T, SinkError>>,
) -> Result<T, SinkError> {
    let late = |_: Elapsed| SinkError::Deadline(DATABASE_DEADLINE);
    timeout(DATABASE_DEADLINE, work).await.map_err(late)?
}

/// Ends a long conversation with the database only when it stands still: a batch may take its time, row by row even, but
/// within the deadline something must have been answered or taken.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    pub fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// # Errors
    /// [`SinkError::Deadline`], or what `work` says.
    pub async fn watch<T>(
        &self,
        work: impl Future<Output = Result<T, SinkError>>,
    ) -> Result<T, SinkError> {
        let mut work = pin!(work);
        loop {
            let seen = self.0.load(Ordering::Relaxed);
            match timeout(DATABASE_DEADLINE, work.as_mut()).await {
                Ok(result) => return result,
                Err(_) if self.0.load(Ordering::Relaxed) == seen => {
                    return Err(SinkError::Deadline(DATABASE_DEADLINE));
                }
                Err(_) => {}
            }
        }
    }
}
