//! A few connections for those who ask the database for something and wait for it: each question has a deadline, and what comes
//! beyond waits its turn. They are not the drain's.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_postgres::Client;

use super::connection::{Database, classify, log_notice};
use crate::pipeline::ports::SinkError;

/// Connections that are made when they are needed, and used again.
pub struct FewConnections {
    database: Database,
    /// What a new one is told first.
    settings: &'static str,
    deadline: Duration,
    free: Semaphore,
    idle: Mutex<Vec<Client>>,
}

/// A connection for one question. Unless it is given back, it is not used again.
pub struct Lent<'a> {
    of: &'a FewConnections,
    pub client: Client,
    _permit: Option<SemaphorePermit<'a>>,
}

impl FewConnections {
    /// `deadline` is for waiting, connecting and asking together.
    pub fn new(
        database: Database,
        connections_max: usize,
        settings: &'static str,
        deadline: Duration,
    ) -> Self {
        Self {
            database,
            settings,
            deadline,
            free: Semaphore::new(connections_max),
            idle: Mutex::default(),
        }
    }

    /// Asks within the deadline.
    ///
    /// # Errors
    /// [`SinkError::Deadline`], or what `question` says.
    pub async fn within_deadline<T>(
        &self,
        question: impl Future<Output = Result<T, SinkError>>,
    ) -> Result<T, SinkError> {
        let late = |_| SinkError::Deadline(self.deadline);
        timeout(self.deadline, question).await.map_err(late)?
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// [`SinkError`] when the database is away or refuses us.
    pub async fn lend(&self) -> Result<Lent<'_>, SinkError> {
        // It is never closed.
        let permit = self.free.acquire().await.ok();
        let client = match self.take_idle() {
            Some(client) => client,
            None => {
                let client = self.database.connect(log_notice).await?;
                let settings = client.batch_execute(self.settings);
                settings.await.map_err(classify)?;
                client
            }
        };
        Ok(Lent {
            of: self,
            client,
            _permit: permit,
        })
    }

    fn take_idle(&self) -> Option<Client> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|client| !client.is_closed());
        idle.pop()
    }
}

impl Lent<'_> {
    /// The answer has come. A connection that failed, or whose answer nobody waited for, is not given back.
    pub fn give_back(self) {
        let idle = self.of.idle.lock();
        idle.unwrap_or_else(PoisonError::into_inner)
            .push(self.client);
    }
}
