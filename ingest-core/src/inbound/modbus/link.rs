//! The connection to an endpoint, kept and made anew: after any failure, and not more often than the endpoint can bear.

use std::time::Duration;

use backon::ExponentialBackoff;
use tokio::time::Instant;
use tokio_modbus::Request;

use super::endpoint::{Answer, CallError, ConnectError, Connection, Endpoint};
use super::networks::Networks;
use super::turn::Asking;
use crate::config::{MODBUS_CONNECT_DELAY_MAX, MODBUS_CONNECT_DELAY_MIN};
use crate::pipeline::circuit::delays;

/// Why nothing is known of a request.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    NotConnected(#[from] ConnectError),
    #[error(transparent)]
    NoAnswer(#[from] CallError),
}

pub struct Link {
    endpoint: Endpoint,
    networks: Networks,
    reply_timeout: Duration,
    connection: Option<Connection>,
    /// Something was answered on this connection.
    is_proven: bool,
    delays: ExponentialBackoff,
    /// While there is no connection, none is tried before.
    next_attempt: Instant,
}

impl Link {
    #[must_use]
    pub fn new(endpoint: Endpoint, networks: Networks, reply_timeout: Duration) -> Self {
        Self {
            endpoint,
            networks,
            reply_timeout,
            connection: None,
            is_proven: false,
            delays: delays(MODBUS_CONNECT_DELAY_MIN, MODBUS_CONNECT_DELAY_MAX),
            next_attempt: Instant::now(),
        }
    }

    #[must_use]
    pub fn reply_timeout(&self) -> Duration {
        self.reply_timeout
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

    /// Asks a slave, over a new connection where there is none, and where that one was closed or something came unasked.
    ///
    /// # Errors
    /// [`Failure`]; of a repeated request, the second one.
    pub async fn call(
        &mut self,
        unit_id: u8,
        request: Request<'static>,
        asking: Asking,
    ) -> Result<Answer, Failure> {
        self.connection = self.connection.take().filter(Connection::is_quiet);
        let was_proven = self.connection.is_some() && self.is_proven;
        let first = self.call_once(unit_id, request.clone(), asking).await;
        match first {
            Err(Failure::NoAnswer(CallError::Broken(_)))
                if was_proven && asking == Asking::Poll =>
            {
                self.call_once(unit_id, request, asking).await
            }
            first => first,
        }
    }

    async fn call_once(
        &mut self,
        unit_id: u8,
        request: Request<'static>,
        asking: Asking,
    ) -> Result<Answer, Failure> {
        // Taken, so that a call that is given up half-way takes the connection with it.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let reply_timeout = match asking {
            Asking::Probe { until } => {
                (self.reply_timeout).min(until.saturating_duration_since(Instant::now()))
            }
            Asking::Poll | Asking::Write => self.reply_timeout,
        };
        let answered = connection.call(unit_id, request, reply_timeout).await;
        match &answered {
            Ok(_) => {
                self.connection = Some(connection);
                self.is_proven = true;
                self.delays = delays(MODBUS_CONNECT_DELAY_MIN, MODBUS_CONNECT_DELAY_MAX);
            }
            Err(_) if matches!(asking, Asking::Probe { .. }) => {}
            // Who takes connections and breaks them is left alone for a while; a silent slave has cost its time.
            Err(CallError::Broken(_) | CallError::Foreign(_)) if !self.is_proven => self.wait(),
            Err(_) => {}
        }
        Ok(answered?)
    }

    async fn connect(&mut self) -> Result<Connection, ConnectError> {
        self.is_proven = false;
        let opened = Connection::open(&self.endpoint, &self.networks).await;
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
