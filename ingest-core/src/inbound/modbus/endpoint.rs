//! Where slaves answer, and a connection to it. The codec is that of `tokio-modbus`; what it leaves open is decided here.
//!
//! **Invariants.**
//! - What a host leads to is checked when it has been looked up: nobody has this node connect to itself, to its link, or to a
//!   group, unless its operator allowed it.
//! - A connection on which a reply was awaited in vain, or came otherwise than asked for, is not used again: the reply may still
//!   come, and would be taken for that of the next request.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_modbus::client::{Client, Context, rtu, tcp};
use tokio_modbus::prelude::SlaveContext;
use tokio_modbus::{Request, Response, Slave};

use crate::config::MODBUS_CONNECT_TIMEOUT;
use crate::pipeline::profiles::{Framing, ModbusAddress};

/// A gateway, or a slave with an address of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    pub framing: Framing,
}

impl Endpoint {
    #[must_use]
    pub fn of(address: &ModbusAddress) -> Self {
        Self {
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
    pub peer: SocketAddr,
}

impl Connection {
    /// Connects to the first of a host's addresses that may be and that answers.
    ///
    /// # Errors
    /// [`ConnectError`], of the address that was tried last.
    pub async fn open(endpoint: &Endpoint, is_local_allowed: bool) -> Result<Self, ConnectError> {
        let opened = timeout(
            MODBUS_CONNECT_TIMEOUT,
            Self::dial(endpoint, is_local_allowed),
        );
        let late = |_| ConnectError::TimedOut(MODBUS_CONNECT_TIMEOUT);
        opened.await.map_err(late)?
    }

    async fn dial(endpoint: &Endpoint, is_local_allowed: bool) -> Result<Self, ConnectError> {
        let found = lookup_host((endpoint.host.as_str(), endpoint.port)).await;
        let mut failure = ConnectError::NotFound(io::ErrorKind::NotFound.into());
        for peer in found.map_err(ConnectError::NotFound)? {
            if let Some(why) = refusal(peer.ip(), is_local_allowed) {
                let address = peer.ip();
                failure = ConnectError::Refused { address, why };
                continue;
            }
            match TcpStream::connect(peer).await {
                Ok(stream) => return Ok(Self::over(stream, peer, endpoint.framing)),
                Err(error) => failure = ConnectError::Unreachable(error),
            }
        }
        Err(failure)
    }

    fn over(stream: TcpStream, peer: SocketAddr, framing: Framing) -> Self {
        // A request is one small segment: it must not wait for company. Without this it is only slower.
        let _ = stream.set_nodelay(true);
        let context = match framing {
            Framing::Tcp => tcp::attach(stream),
            Framing::RtuOverTcp => rtu::attach(stream),
        };
        Self { context, peer }
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

/// Why this node does not connect to an address.
fn refusal(address: IpAddr, is_local_allowed: bool) -> Option<&'static str> {
    let (is_local, is_nobody) = match embedded(address) {
        IpAddr::V4(v4) => (
            v4.is_loopback() || v4.is_link_local(),
            v4.octets()[0] == 0 || v4.octets()[0] >= 224,
        ),
        IpAddr::V6(v6) => (
            v6.is_loopback() || v6.is_unicast_link_local(),
            v6.is_unspecified() || v6.is_multicast(),
        ),
    };
    match (is_nobody, is_local && !is_local_allowed) {
        (true, _) => Some("which is the address of no single device"),
        (_, true) => Some("which is this machine or its own link"),
        _ => None,
    }
}

/// An address of version 4 that is written as one of version 6, as what it is: mapped, compatible, or behind NAT64.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else {
        return address.to_canonical();
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
            if v6 != Ipv6Addr::LOCALHOST && v6 != Ipv6Addr::UNSPECIFIED =>
        {
            Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)).into()
        }
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_does_not_connect_to_itself_its_link_or_a_group() {
        let local = [
            "127.0.0.1",
            "127.8.8.8",
            "::1",
            "169.254.169.254",
            "fe80::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
        ];
        let nobody = [
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::",
            "ff02::1",
            "::ffff:0.0.0.0",
        ];
        let devices = [
            "10.0.4.7",
            "192.168.1.9",
            "203.0.113.5",
            "2001:db8::7",
            "fd00::1",
        ];
        let refused = |text: &str, is_local_allowed| {
            let address = text.parse().unwrap();
            refusal(address, is_local_allowed).is_some()
        };
        for address in local {
            assert!(
                refused(address, false) && !refused(address, true),
                "{address}"
            );
        }
        for address in nobody {
            assert!(
                refused(address, false) && refused(address, true),
                "{address}"
            );
        }
        for address in devices {
            assert!(!refused(address, false), "{address}");
        }
    }

    #[tokio::test]
    async fn what_a_name_leads_to_is_checked() {
        let endpoint = Endpoint {
            host: "localhost".to_owned(),
            port: 1,
            framing: Framing::Tcp,
        };
        let refused = Connection::open(&endpoint, false).await.err();
        assert!(
            matches!(refused, Some(ConnectError::Refused { .. })),
            "{refused:?}"
        );
        let allowed = Connection::open(&endpoint, true).await.err();
        assert!(
            matches!(allowed, Some(ConnectError::Unreachable(_))),
            "{allowed:?}"
        );
    }
}
