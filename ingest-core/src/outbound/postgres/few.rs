//! A few connections for those who ask the database for something and wait for it: each question has a deadline, and what comes
//! beyond waits its turn. They are not the drain's.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_postgres::{Client, Error};

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

    /// Asks on a connection that nobody else has. One that failed, or whose answer nobody waited for, is not used again.
    ///
    /// # Errors
    /// [`SinkError`] when the database is away or refuses us, or when the deadline has passed.
    pub async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&Client) -> Result<T, Error>,
    ) -> Result<T, SinkError> {
        let asked = async {
            // It is never closed.
            let _permit = self.free.acquire().await.ok();
            let client = match self.take_idle() {
                Some(client) => client,
                None => self.connect().await?,
            };
            let answer = question(&client).await.map_err(classify)?;
            self.idle().push(client);
            Ok(answer)
        };
        let late = |_| SinkError::Deadline(self.deadline);
        timeout(self.deadline, asked).await.map_err(late)?
    }

    async fn connect(&self) -> Result<Client, SinkError> {
        let client = self.database.connect(log_notice).await?;
        let settings = client.batch_execute(self.settings);
        settings.await.map_err(classify)?;
        Ok(client)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_idle(&self) -> Option<Client> {
        let mut idle = self.idle();
        idle.retain(|client| !client.is_closed());
        idle.pop()
    }
}
