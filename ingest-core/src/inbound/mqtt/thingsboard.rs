//! The topics of ThingsBoard's device API; the payloads are in `inbound::formats::thingsboard`.
//!
//! ```text
//! v1/devices/me/telemetry               v2/t             what was measured
//! v1/devices/me/attributes              v2/a             published: what it reports; subscribed to: what is desired of it
//! v1/devices/me/attributes/request/{n}  v2/a/req/{n}     the answer goes to .../response/{n}, v2/a/res/{n}
//! v1/devices/me/rpc/request/{n}         v2/r/req/{n}     subscribed to: a command; published: the device asks
//! v1/devices/me/rpc/response/{n}        v2/r/res/{n}     the answer to either
//! v1/devices/me/claim                                    the device lets itself be claimed
//! v1/gateway/...                                         the same for the children of a gateway
//! ```
//!
//! The short topics may have `j` before the number; Protocol Buffers (`p`) are not spoken.

use super::topics::{Channel, Topic};

const ATTRIBUTES: [&str; 3] = ["v1/devices/me/attributes", "v2/a", "v2/a/j"];
const TELEMETRY: [&str; 3] = ["v1/devices/me/telemetry", "v2/t", "v2/t/j"];
/// Of requests and of their responses, without the number; what is longer comes first.
const OF_RPC: [(&str, &str); 3] = [
    ("v1/devices/me/rpc/request/", "v1/devices/me/rpc/response/"),
    ("v2/r/req/j/", "v2/r/res/j/"),
    ("v2/r/req/", "v2/r/res/"),
];
const OF_ATTRIBUTES: [(&str, &str); 3] = [
    (
        "v1/devices/me/attributes/request/",
        "v1/devices/me/attributes/response/",
    ),
    ("v2/a/req/j/", "v2/a/res/j/"),
    ("v2/a/req/", "v2/a/res/"),
];
pub const GATEWAY_ATTRIBUTES: &str = "v1/gateway/attributes";
pub const GATEWAY_ATTRIBUTE_RESPONSES: &str = "v1/gateway/attributes/response";
pub const GATEWAY_RPC: &str = "v1/gateway/rpc";
/// Where a device without a token asks for one, and is answered.
pub const PROVISION_REQUEST: &str = "/provision/request";
pub const PROVISION_RESPONSE: &str = "/provision/response";

/// What is published to a topic; none where it is not one of these.
#[must_use]
pub fn topic(topic: &str) -> Option<Topic<'_>> {
    let numbered = |pairs: [(&'static str, &'static str); 3]| {
        let mut pairs = pairs.into_iter();
        let found = pairs.find_map(|(requests, responses)| {
            let number = topic.strip_prefix(requests)?;
            Some((number, responses))
        })?;
        (!found.0.is_empty() && !found.0.contains('/')).then_some(found)
    };
    if TELEMETRY.contains(&topic) {
        return Some(Topic::Telemetry);
    }
    if ATTRIBUTES.contains(&topic) {
        return Some(Topic::Attributes);
    }
    let responses = OF_RPC.into_iter().map(|(_, responses)| responses);
    if let Some(number) = responses.filter_map(|r| topic.strip_prefix(r)).next() {
        return Some(Topic::RpcResponse { number });
    }
    if let Some((number, responses)) = numbered(OF_ATTRIBUTES) {
        return Some(Topic::AttributeRequest { number, responses });
    }
    if let Some((number, responses)) = numbered(OF_RPC) {
        return Some(Topic::DeviceRpc { number, responses });
    }
    Some(match topic {
        "v1/devices/me/claim" => Topic::Claim,
        PROVISION_REQUEST => Topic::Provision,
        GATEWAY_ATTRIBUTES => Topic::GatewayAttributes,
        GATEWAY_RPC => Topic::GatewayRpcResponse,
        "v1/gateway/telemetry" => Topic::GatewayTelemetry,
        "v1/gateway/connect" => Topic::GatewayConnect,
        "v1/gateway/disconnect" => Topic::GatewayDisconnect,
        "v1/gateway/attributes/request" => Topic::GatewayAttributeRequest,
        "v1/gateway/claim" => Topic::GatewayClaim,
        _ => return None,
    })
}

/// What is heard through a filter; none where it is not one of these.
#[must_use]
pub fn channel(filter: &str) -> Option<Channel> {
    match filter {
        GATEWAY_ATTRIBUTES => return Some(Channel::GatewayDesired),
        GATEWAY_ATTRIBUTE_RESPONSES => return Some(Channel::GatewayAttributeResponses),
        GATEWAY_RPC => return Some(Channel::GatewayRpc),
        _ => {}
    }
    if let Some(topic) = ATTRIBUTES.into_iter().find(|topic| *topic == filter) {
        return Some(Channel::Desired { topic });
    }
    let of_all = filter.strip_suffix('+')?;
    let is_this = |topic: &&'static str| *topic == of_all;
    let (requests, responses) = (OF_RPC.map(|(one, _)| one), OF_RPC.map(|(_, other)| other));
    let attributes = OF_ATTRIBUTES.map(|(_, responses)| responses);
    if let Some(topic) = requests.into_iter().find(is_this) {
        return Some(Channel::Rpc { topic });
    }
    let mut responses = responses.into_iter().chain(attributes);
    let topic = responses.find(is_this)?;
    Some(Channel::Responses { topic })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_topic_is_known_in_its_long_and_its_short_form() {
        for name in TELEMETRY {
            assert_eq!(topic(name), Some(Topic::Telemetry));
        }
        for name in ATTRIBUTES {
            assert_eq!(topic(name), Some(Topic::Attributes));
            assert_eq!(channel(name), Some(Channel::Desired { topic: name }));
        }
        for (requests, responses) in OF_RPC {
            let (number, asked) = ("7", format!("{requests}7"));
            assert_eq!(topic(&asked), Some(Topic::DeviceRpc { number, responses }));
            let answered = format!("{responses}7");
            assert_eq!(topic(&answered), Some(Topic::RpcResponse { number }));
            let heard = channel(&format!("{requests}+"));
            assert_eq!(heard, Some(Channel::Rpc { topic: requests }));
        }
        for (requests, responses) in OF_ATTRIBUTES {
            let (number, asked) = ("7", format!("{requests}7"));
            let expected = Topic::AttributeRequest { number, responses };
            assert_eq!(topic(&asked), Some(expected));
            let heard = channel(&format!("{responses}+"));
            assert_eq!(heard, Some(Channel::Responses { topic: responses }));
        }
        for unknown in [
            "v1/devices/me",
            "v2/x",
            "v1/gateway",
            "v2/fw/request/1/chunk/0",
        ] {
            assert_eq!(topic(unknown), None);
        }
        for unknown in [
            "v1/devices/me/+",
            "v1/devices/me/rpc/request/#",
            "v2/fw/response/+/chunk/+",
        ] {
            assert_eq!(channel(unknown), None);
        }
    }
}
