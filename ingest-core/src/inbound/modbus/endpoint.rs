//! Where slaves answer, and a connection to it. The codec is that of `tokio-modbus`; what it leaves open is decided here.
//!
//! **Invariants.**
//! - What a host leads to is checked when it has been looked up (see `networks`).
//! - A connection on which a reply was awaited in vain, or came otherwise than asked for, is not used again: the reply may still
//!   come, and would be taken for that of the next request.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_modbus::client::{Client, Context, rtu, tcp};
use tokio_modbus::prelude::SlaveContext;
use tokio_modbus::{Request, Response, Slave};
use uuid::Uuid;

use super::networks::Networks;
use crate::config::MODBUS_CONNECT_TIMEOUT;
use crate::pipeline::profiles::{Framing, ModbusAddress};

/// A gateway, or a slave with an address of its own, as one organisation knows it: none waits for the devices of another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    pub framing: Framing,
    pub organization_id: Uuid,
}

impl Endpoint {
    #[must_use]
    pub fn of(address: &ModbusAddress, organization_id: Uuid) -> Self {
        Self {
            organization_id,
            host: address.host.clone(),
            port: address.port,
            framing: address.framing,
        }
    }
}

/// Why there is no connection. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the host leads nowhere: {0}")]
    NotFound(io::Error),
    #[error("the host leads to {address}, {why}: this node does not connect to it")]
    Refused { address: IpAddr, why: &'static str },
    #[error("cannot connect: {0}")]
    Unreachable(io::Error),
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
}

/// Why a request has no answer. The device may have received it.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("no reply within {0:?}")]
    TimedOut(Duration),
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    #[error("the reply does not belong to the request: {0}")]
    Foreign(tokio_modbus::ProtocolError),
}

impl From<tokio_modbus::Error> for CallError {
    fn from(error: tokio_modbus::Error) -> Self {
        match error {
            tokio_modbus::Error::Transport(error) => Self::Broken(error),
            tokio_modbus::Error::Protocol(error) => Self::Foreign(error),
        }
    }
}

/// What a slave answered: what was asked for, or the number of its exception.
pub type Answer = Result<Response, u8>;

pub struct Connection {
    context: Context,
    /// The same one, to be looked at.
    socket: OwnedFd,
    pub peer: SocketAddr,
}

impl Connection {
    /// Connects to the first of a host's addresses that may be and that answers.
    ///
    /// # Errors
    /// [`ConnectError`], of the address that was tried last.
    pub async fn open(endpoint: &Endpoint, networks: &Networks) -> Result<Self, ConnectError> {
        let opened = timeout(MODBUS_CONNECT_TIMEOUT, Self::dial(endpoint, networks));
        let late = |_| ConnectError::TimedOut(MODBUS_CONNECT_TIMEOUT);
        opened.await.map_err(late)?
    }

    async fn dial(endpoint: &Endpoint, networks: &Networks) -> Result<Self, ConnectError> {
        let found = lookup_host((endpoint.host.as_str(), endpoint.port)).await;
        let mut failure = ConnectError::NotFound(io::ErrorKind::NotFound.into());
        for peer in found.map_err(ConnectError::NotFound)? {
            if let Some(why) = networks.refusal(endpoint.organization_id, peer.ip()) {
                let address = peer.ip();
                failure = ConnectError::Refused { address, why };
                continue;
            }
            match TcpStream::connect(peer).await {
                Ok(stream) => {
                    let connection = Self::over(stream, peer, endpoint.framing);
                    return connection.map_err(ConnectError::Unreachable);
                }
                Err(error) => failure = ConnectError::Unreachable(error),
            }
        }
        Err(failure)
    }

    fn over(stream: TcpStream, peer: SocketAddr, framing: Framing) -> io::Result<Self> {
        // A request is one small segment: it must not wait for company. Without this it is only slower.
        let _ = stream.set_nodelay(true);
        let socket = stream.as_fd().try_clone_to_owned()?;
        let context = match framing {
            Framing::Tcp => tcp::attach(stream),
            Framing::RtuOverTcp => rtu::attach(stream),
        };
        Ok(Self {
            context,
            socket,
            peer,
        })
    }

    /// Is it open, with nothing said that was not asked for? In the RTU form that would be taken for the next reply.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let peeked = SockRef::from(&self.socket).peek(&mut [MaybeUninit::uninit()]);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Asks a slave. After an error the connection is not to be used again.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call(
        &mut self,
        unit_id: u8,
        request: Request<'_>,
        reply_timeout: Duration,
    ) -> Result<Answer, CallError> {
        self.context.set_slave(Slave(unit_id));
        let answer = timeout(reply_timeout, self.context.call(request)).await;
        let answer = answer.map_err(|_| CallError::TimedOut(reply_timeout))??;
        Ok(answer.map_err(u8::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_name_leads_to_is_checked() {
        let endpoint = Endpoint {
            host: "localhost".to_owned(),
            port: 1,
            framing: Framing::Tcp,
            organization_id: Uuid::nil(),
        };
        let refused = Connection::open(&endpoint, &Networks::default())
            .await
            .err();
        assert!(
            matches!(refused, Some(ConnectError::Refused { .. })),
            "{refused:?}"
        );
        let local = ["127.0.0.0/8", "::1/128"].map(|named| named.to_owned().try_into().unwrap());
        let allowed = Connection::open(&endpoint, &Networks::new(local.into()))
            .await
            .err();
        assert!(
            matches!(allowed, Some(ConnectError::Unreachable(_))),
            "{allowed:?}"
        );
    }
}
