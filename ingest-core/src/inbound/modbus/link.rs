//! The connection to an endpoint, kept and made anew: after any failure, and not more often than the endpoint can bear.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;
use tokio_modbus::Request;

use super::endpoint::{Answer, CallError, ConnectError, Connection, Endpoint};
use crate::config::{MODBUS_CONNECT_DELAY_MAX, MODBUS_CONNECT_DELAY_MIN};

/// Why nothing is known of a request.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    NotConnected(#[from] ConnectError),
    #[error(transparent)]
    NoAnswer(#[from] CallError),
}

/// May a request be sent a second time, when nobody knows what became of the first?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    Once,
    Never,
}

pub struct Link {
    endpoint: Endpoint,
    is_local_allowed: bool,
    reply_timeout: Duration,
    connection: Option<Connection>,
    /// Something was answered on this connection.
    is_proven: bool,
    delays: ExponentialBackoff,
    /// While there is no connection, none is tried before.
    next_attempt: Instant,
}

fn delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(MODBUS_CONNECT_DELAY_MIN)
        .with_max_delay(MODBUS_CONNECT_DELAY_MAX)
        .with_jitter()
        .without_max_times()
        .build()
}

impl Link {
    #[must_use]
    pub fn new(endpoint: Endpoint, is_local_allowed: bool, reply_timeout: Duration) -> Self {
        Self {
            endpoint,
            is_local_allowed,
            reply_timeout,
            connection: None,
            is_proven: false,
            delays: delays(),
            next_attempt: Instant::now(),
        }
    }

    /// Asking makes no sense before.
    #[must_use]
    pub fn next_attempt(&self) -> Instant {
        self.next_attempt
    }

    #[must_use]
    pub fn connection(&self) -> Option<&Connection> {
        self.connection.as_ref()
    }

    /// What comes next on it would be taken for what it is not.
    pub fn drop_connection(&mut self) {
        self.connection = None;
    }

    /// Asks a slave, over a new connection where there is none. One that was closed while it lay idle is noticed only by asking.
    ///
    /// # Errors
    /// [`Failure`]; of a repeated request, the second one.
    pub async fn call(
        &mut self,
        unit_id: u8,
        request: Request<'static>,
        repeat: Repeat,
    ) -> Result<Answer, Failure> {
        let was_proven = self.is_proven;
        let first = self.call_once(unit_id, request.clone()).await;
        match first {
            Err(Failure::NoAnswer(CallError::Broken(_)))
                if was_proven && repeat == Repeat::Once =>
            {
                self.call_once(unit_id, request).await
            }
            first => first,
        }
    }

    async fn call_once(
        &mut self,
        unit_id: u8,
        request: Request<'static>,
    ) -> Result<Answer, Failure> {
        // Taken, so that a call that is given up half-way takes the connection with it.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let answered = connection.call(unit_id, request, self.reply_timeout).await;
        match &answered {
            Ok(_) => {
                self.connection = Some(connection);
                self.is_proven = true;
                self.delays = delays();
            }
            // Who takes connections and breaks them is left alone for a while; a silent slave has cost its time.
            Err(CallError::Broken(_) | CallError::Foreign(_)) if !self.is_proven => self.wait(),
            Err(_) => {}
        }
        Ok(answered?)
    }

    async fn connect(&mut self) -> Result<Connection, ConnectError> {
        self.is_proven = false;
        let opened = Connection::open(&self.endpoint, self.is_local_allowed).await;
        if opened.is_err() {
            self.wait();
        }
        opened
    }

    fn wait(&mut self) {
        let delay = self.delays.next().unwrap_or(MODBUS_CONNECT_DELAY_MAX);
        self.next_attempt = Instant::now() + delay;
    }
}
