//! The topics of a device, and the aliases that stand for them.

use std::borrow::Cow;

use super::codec::{CodecError, Publish, ReasonCode};
use super::{firmware, thingsboard};
use crate::inbound::formats::shelly::{self, ShellyTopic};
use crate::inbound::formats::tasmota::TasmotaTopic;
use crate::inbound::formats::zigbee2mqtt::ZigbeeTopic;

/// Where a device publishes its events.
const EVENTS: &str = "hse/v1/events";
/// Where it publishes SenML.
const SENML: &str = "hse/v1/senml";
/// With the request id behind it.
const RESULTS: &str = "hse/v1/results/";
const COMMANDS: &str = "hse/v1/commands/";
/// The filters that are one's own commands.
const COMMAND_FILTERS: [&str; 2] = ["hse/v1/commands/+", "hse/v1/commands/#"];

/// Aliases of one connection; each holds a topic, which a packet bounds.
pub const TOPIC_ALIAS_MAXIMUM: u16 = 8;

/// What a device may publish to.
#[derive(Debug, PartialEq, Eq)]
pub enum Topic<'a> {
    Events,
    /// The answer to a command.
    Result {
        request_id: Cow<'a, str>,
    },
    /// The following are ThingsBoard's; a number is the device's own where it asks, and the core's where it answers.
    Telemetry,
    /// What the device reports to be.
    Attributes,
    AttributeRequest {
        number: &'a str,
        responses: &'static str,
    },
    /// The device asks.
    DeviceRpc {
        number: &'a str,
        responses: &'static str,
    },
    /// The answer to a command that was sent under a number.
    RpcResponse {
        number: &'a str,
    },
    Claim,
    Provision,
    GatewayConnect,
    GatewayDisconnect,
    GatewayTelemetry,
    GatewayAttributes,
    GatewayAttributeRequest,
    GatewayRpcResponse,
    GatewayClaim,
    /// The following are other formats'.
    Senml,
    Tasmota(TasmotaTopic<'a>),
    Shelly(ShellyTopic<'a>),
    Zigbee(ZigbeeTopic<'a>),
    /// A Shelly answers a command.
    ShellyAnswer,
    Unknown,
}

impl<'a> Topic<'a> {
    #[must_use]
    pub fn of(topic: &'a str) -> Self {
        if topic == EVENTS {
            Self::Events
        } else if let Some(level) = topic.strip_prefix(RESULTS) {
            let request_id = unescaped(level);
            Self::Result { request_id }
        } else {
            thingsboard::topic(topic).unwrap_or_else(|| Self::of_others(topic))
        }
    }
}

impl<'a> Topic<'a> {
    fn of_others(topic: &'a str) -> Self {
        match topic {
            SENML => return Self::Senml,
            shelly::ANSWERS => return Self::ShellyAnswer,
            _ => {}
        }
        let zigbee = || ZigbeeTopic::of(topic).map(Self::Zigbee);
        let tasmota = || TasmotaTopic::of(topic).map(Self::Tasmota);
        let shelly = || ShellyTopic::of(topic).map(Self::Shelly);
        zigbee()
            .or_else(tasmota)
            .or_else(shelly)
            .unwrap_or(Self::Unknown)
    }

    /// May the payload be read by the mapping of a profile? Where nothing of it is mapped, a format that is known by the topic
    /// has its turn.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        matches!(
            self,
            Self::Tasmota(TasmotaTopic::Values | TasmotaTopic::Answer { .. })
                | Self::Shelly(ShellyTopic::Notification | ShellyTopic::Status { .. })
                | Self::Unknown
        )
    }

    /// Does the payload say what its topic says, and nothing of a conversation?
    #[must_use]
    pub fn is_of_events(&self) -> bool {
        matches!(
            self,
            Self::Events
                | Self::Telemetry
                | Self::Attributes
                | Self::Senml
                | Self::Tasmota(_)
                | Self::Shelly(_)
                | Self::Zigbee(_)
        )
    }
}

/// Where a device hears a command.
#[must_use]
pub fn command_topic(request_id: &str) -> String {
    let mut topic = String::with_capacity(COMMANDS.len() + request_id.len());
    topic.push_str(COMMANDS);
    for character in request_id.chars() {
        match ESCAPED.iter().find(|(escaped, _)| *escaped == character) {
            Some((_, code)) => topic.push_str(code),
            None => topic.push(character),
        }
    }
    topic
}

/// Characters of a request id that a level of a topic cannot hold, and what stands for them.
const ESCAPED: [(char, &str); 4] = [('%', "%25"), ('/', "%2F"), ('+', "%2B"), ('#', "%23")];

fn unescaped(level: &str) -> Cow<'_, str> {
    if !level.contains('%') {
        return Cow::Borrowed(level);
    }
    let mut rest = level;
    let mut out = String::with_capacity(level.len());
    let mut characters = rest.chars();
    while let Some(character) = characters.next() {
        let code = ESCAPED.iter().find_map(|(escaped, code)| {
            let behind = rest.strip_prefix(code)?;
            Some((*escaped, behind))
        });
        let (said, behind) = code.unwrap_or((character, characters.as_str()));
        out.push(said);
        rest = behind;
        characters = rest.chars();
    }
    Cow::Owned(out)
}

/// What a device hears by a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channel {
    /// Commands under their request ids.
    Commands,
    /// Commands under numbers, which follow the topic.
    Rpc {
        topic: &'static str,
    },
    /// Commands under their names, which follow the base.
    Tasmota {
        base: Box<str>,
    },
    Shelly {
        prefix: Box<str>,
    },
    /// Commands for the children of a gateway, and for itself.
    Zigbee,
    /// Commands for the children of a gateway.
    GatewayRpc,
    /// What it is desired to be.
    Desired {
        topic: &'static str,
    },
    /// What its children are desired to be.
    GatewayDesired,
    /// Answers to what it asks under numbers, which follow the topic.
    Responses {
        topic: &'static str,
    },
    GatewayAttributeResponses,
}

impl Channel {
    /// Does it bring commands of the device itself?
    #[must_use]
    pub fn is_of_commands(&self) -> bool {
        matches!(
            self,
            Self::Commands
                | Self::Rpc { .. }
                | Self::Tasmota { .. }
                | Self::Shelly { .. }
                | Self::Zigbee
        )
    }
}

/// What a device hears that subscribes to `filter`.
///
/// # Errors
/// Why it may not.
pub fn channel_of(filter: &str) -> Result<Channel, ReasonCode> {
    if COMMAND_FILTERS.contains(&filter) {
        Ok(Channel::Commands)
    } else if let Some(channel) = thingsboard::channel(filter).or_else(|| firmware::channel(filter))
    {
        Ok(channel)
    } else if !is_filter(filter) {
        Err(ReasonCode::TopicFilterInvalid)
    } else if filter.starts_with("$share/") {
        Err(ReasonCode::SharedSubscriptionsNotSupported)
    } else {
        Err(ReasonCode::NotAuthorized)
    }
}

/// A wildcard is a level of its own, and `#` the last one.
fn is_filter(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let is_valid = match level {
            "+" => true,
            "#" => levels.peek().is_none(),
            _ => !level.contains(['+', '#']),
        };
        if !is_valid {
            return false;
        }
    }
    true
}

/// Which topics the aliases of a connection stand for.
#[derive(Debug, Default)]
pub struct TopicAliases {
    topics: [Option<Box<str>>; TOPIC_ALIAS_MAXIMUM as usize],
}

impl TopicAliases {
    /// The topic that a publication goes to. One that comes with an alias is what the alias stands for from now on.
    ///
    /// # Errors
    /// `TopicAliasInvalid`.
    pub fn resolve<'t>(&'t mut self, publish: &Publish<'t>) -> Result<&'t str, CodecError> {
        let Some(alias) = publish.topic_alias else {
            return Ok(publish.topic);
        };
        let place = usize::from(alias).wrapping_sub(1);
        let known = (self.topics.get_mut(place)).ok_or(CodecError::TopicAliasInvalid)?;
        if !publish.topic.is_empty() {
            *known = Some(publish.topic.into());
        }
        known.as_deref().ok_or(CodecError::TopicAliasInvalid)
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::Qos;
    use super::*;

    #[test]
    fn a_request_id_comes_back_from_the_topic_that_it_went_to() {
        for request_id in ["r-1", "a/b", "50%", "+", "#", "%2F", "ñandú"] {
            let topic = command_topic(request_id);
            let level = topic.strip_prefix(COMMANDS).unwrap();
            assert!(!level.contains(['/', '+', '#']), "{level}");
            let answer = format!("{RESULTS}{level}");
            let expected = Topic::Result {
                request_id: request_id.into(),
            };
            assert_eq!(Topic::of(&answer), expected);
        }
        assert_eq!(Topic::of("hse/v1/events"), Topic::Events);
        assert_eq!(Topic::of("hse/v1/events/1"), Topic::Unknown);
    }

    #[test]
    fn a_device_subscribes_to_its_commands_and_to_nothing_else() {
        let answers = [
            ("hse/v1/commands/+", Ok(Channel::Commands)),
            ("hse/v1/commands/#", Ok(Channel::Commands)),
            ("v2/r/req/+", Ok(Channel::Rpc { topic: "v2/r/req/" })),
            (
                "v1/devices/me/rpc/request/#",
                Err(ReasonCode::NotAuthorized),
            ),
            ("#", Err(ReasonCode::NotAuthorized)),
            ("hse/v1/events", Err(ReasonCode::NotAuthorized)),
            ("a/#/b", Err(ReasonCode::TopicFilterInvalid)),
            ("a+/b", Err(ReasonCode::TopicFilterInvalid)),
            (
                "$share/g/hse/v1/commands/+",
                Err(ReasonCode::SharedSubscriptionsNotSupported),
            ),
        ];
        for (filter, answer) in answers {
            assert_eq!(channel_of(filter), answer, "{filter}");
        }
    }

    #[test]
    fn an_alias_stands_for_the_topic_that_came_with_it_last() {
        let publish = |topic, alias| Publish {
            is_dup: false,
            qos: Qos::AtMostOnce,
            topic,
            packet_id: None,
            topic_alias: Some(alias),
            payload: b"",
        };
        let mut aliases = TopicAliases::default();
        let invalid = Err(CodecError::TopicAliasInvalid);
        assert_eq!(aliases.resolve(&publish("", 1)), invalid);
        assert_eq!(aliases.resolve(&publish("a", 9)), invalid);
        for topic in ["a", "b"] {
            assert_eq!(aliases.resolve(&publish(topic, 8)), Ok(topic));
            assert_eq!(aliases.resolve(&publish("", 8)), Ok(topic));
        }
    }
}
