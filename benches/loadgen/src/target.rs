//! Where load may go, and from which addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio_postgres::config::Host;

use crate::error::BenchError;

/// Loopback has 2^24 addresses and a pair of addresses about 28 000 free ports, so connections are spread.
const CONNECTIONS_PER_SOURCE: usize = 10_000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// # Errors
/// The address is not on this machine: this is a load generator, not a weapon.
pub fn only_loopback(address: SocketAddr) -> Result<SocketAddr, BenchError> {
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(BenchError::NotLoopback { address })
    }
}

/// # Errors
/// The URL is not one, or it names another machine.
pub fn only_local_database(url: &str) -> Result<tokio_postgres::Config, BenchError> {
    let config: tokio_postgres::Config = url.parse()?;
    let is_local = config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
    });
    if is_local && config.get_hostaddrs().iter().all(IpAddr::is_loopback) {
        Ok(config)
    } else {
        Err(BenchError::NotLocalDatabase)
    }
}

/// Connects the `index`-th connection of this process, blocking.
pub fn connect(address: SocketAddr, index: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    let group = index / CONNECTIONS_PER_SOURCE;
    if let (true, Ok(group)) = (address.is_ipv4() && group > 0, u32::try_from(group)) {
        // Without this the port would be chosen at bind, for all destinations at once.
        socket.set_reuse_address(true)?;
        let source = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits().saturating_add(group));
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    socket.connect_timeout(&address.into(), CONNECT_TIMEOUT)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}
