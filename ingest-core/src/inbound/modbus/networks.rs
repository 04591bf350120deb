//! Which addresses this node connects to: those of the networks that its operator named, and of no others. Who may register
//! devices says where they are, so without that he could have the node talk to whatever it can reach (ADR 30).
//!
//! What is checked is the address that is connected to, whatever name led there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use uuid::Uuid;

use crate::config::PolledNetwork;

#[derive(Debug, Clone, Default)]
pub struct Networks(Vec<PolledNetwork>);

impl Networks {
    #[must_use]
    pub fn new(networks: Vec<PolledNetwork>) -> Self {
        Self(networks)
    }

    /// Why this node does not connect to an address for an organisation's devices; none: it may. This machine and its link are meant only by a network that
    /// holds nothing else.
    #[must_use]
    pub fn refusal(&self, organization_id: Uuid, address: IpAddr) -> Option<&'static str> {
        let address = embedded(address);
        if is_nobody(address) {
            return Some("which is the address of no single device");
        }
        let own = self.0.iter().filter(|named| {
            named
                .organization_id
                .is_none_or(|only| only == organization_id)
        });
        let mut named = own
            .map(|named| named.network)
            .filter(|network| network.contains(&address));
        let is_named = match is_local(address) {
            true => {
                named.any(|network| is_local(network.network()) && is_local(network.broadcast()))
            }
            false => named.next().is_some(),
        };
        (!is_named)
            .then_some("which is in no network that modbus_networks names for its organisation")
    }
}

fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    }
}

fn is_nobody(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.octets()[0] >= 224,
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast(),
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

    fn refused<'a>(networks: &str, addresses: &[&'a str]) -> Vec<&'a str> {
        let named = networks
            .split_whitespace()
            .map(|network| PolledNetwork::try_from(network.to_owned()).unwrap());
        let networks = Networks::new(named.collect());
        let is_refused =
            |address: &&str| networks.refusal(ACME, address.parse().unwrap()).is_some();
        addresses.iter().copied().filter(is_refused).collect()
    }

    const ACME: Uuid = Uuid::from_u128(5);

    const DEVICES: [&str; 5] = [
        "10.0.4.7",
        "192.168.1.9",
        "203.0.113.5",
        "2001:db8::7",
        "fd00::1",
    ];
    const LOCAL: [&str; 7] = [
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "169.254.169.254",
        "fe80::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
    ];
    const NOBODY: [&str; 7] = [
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::",
        "ff02::1",
        "::ffff:0.0.0.0",
    ];

    #[test]
    fn where_nothing_is_named_nobody_is_connected_to() {
        assert_eq!(refused("", &DEVICES), DEVICES);
    }

    #[test]
    fn only_what_is_named_is_connected_to() {
        let named = "10.0.0.0/8 203.0.113.5/32 fd00::/8";
        assert_eq!(refused(named, &DEVICES), ["192.168.1.9", "2001:db8::7"]);
        let as_version_6 = ["::ffff:10.1.2.3", "64:ff9b::a01:203", "::ffff:11.1.2.3"];
        assert_eq!(refused(named, &as_version_6), ["::ffff:11.1.2.3"]);
    }

    #[test]
    fn a_network_may_be_one_organisation_s() {
        let named = format!("{ACME}=10.0.0.0/8 {}=203.0.113.0/24 fd00::/8", Uuid::nil());
        assert_eq!(
            refused(&named, &DEVICES),
            ["192.168.1.9", "203.0.113.5", "2001:db8::7"]
        );
    }

    #[test]
    fn this_machine_and_its_link_are_not_meant_by_a_network_that_holds_more() {
        let everything = "0.0.0.0/0 ::/0";
        assert_eq!(refused(everything, &DEVICES), [""; 0]);
        assert_eq!(refused(everything, &LOCAL), LOCAL);
        let local = "127.0.0.0/8 ::1/128 169.254.0.0/16 fe80::/10";
        assert_eq!(refused(local, &LOCAL), [""; 0]);
    }

    #[test]
    fn nobody_and_groups_are_never_connected_to() {
        assert_eq!(
            refused("0.0.0.0/0 ::/0 224.0.0.0/4 ::/128", &NOBODY),
            NOBODY
        );
    }
}
