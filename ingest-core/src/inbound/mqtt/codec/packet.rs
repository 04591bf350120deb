//! What a client says.

use super::decode::CodecError;
use super::properties::Properties;
use super::reader::Reader;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V311,
    V5,
}

/// How surely a message is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    AtMostOnce,
    AtLeastOnce,
    /// Understood, and not served.
    ExactlyOnce,
}

impl Qos {
    /// # Errors
    /// `Malformed` for 3, which stands for nothing.
    pub fn of_bits(bits: u8) -> Result<Self, CodecError> {
        match bits & 0b11 {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            2 => Ok(Self::ExactlyOnce),
            _ => Err(CodecError::Malformed("QoS 3")),
        }
    }

    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce => 1,
            Self::ExactlyOnce => 2,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect<'a> {
    pub version: Version,
    /// Clean Session of version 3.1.1, Clean Start of version 5.
    pub is_clean: bool,
    /// In seconds; 0 = none.
    pub keep_alive: u16,
    pub client_id: &'a str,
    pub will: Option<Will<'a>>,
    pub username: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    pub session_expiry: u32,
    /// Messages of QoS 1 that the client takes at a time.
    pub receive_maximum: u16,
    pub packet_bytes_max: Option<u32>,
    /// May reasons be told in words elsewhere than in CONNACK and DISCONNECT?
    pub wants_problem_information: bool,
    pub authentication_method: Option<&'a str>,
}

/// What is said for the client when it is gone without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: Qos,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    Publish(Publish<'a>),
    Puback { packet_id: u16 },
    Subscribe(Subscribe<'a>),
    Unsubscribe(Unsubscribe<'a>),
    Pingreq,
    Disconnect(Disconnect),
}

impl Packet<'_> {
    /// For the metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Publish(_) => "publish",
            Self::Puback { .. } => "puback",
            Self::Subscribe(_) => "subscribe",
            Self::Unsubscribe(_) => "unsubscribe",
            Self::Pingreq => "pingreq",
            Self::Disconnect(_) => "disconnect",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Sent before; only said with QoS 1 and 2.
    pub is_dup: bool,
    pub qos: Qos,
    /// Empty where an alias stands for it.
    pub topic: &'a str,
    /// None with QoS 0.
    pub packet_id: Option<u16>,
    /// Never 0.
    pub topic_alias: Option<u16>,
    pub payload: &'a [u8],
}

/// How a client takes leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect {
    /// The will is to be published all the same.
    pub is_will_wanted: bool,
}

/// Topic filters with their options, at least one; checked when the packet was decoded.
#[derive(Debug, Clone, Copy)]
pub struct Subscribe<'a> {
    pub packet_id: u16,
    pub(super) version: Version,
    pub(super) filters: Reader<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription<'a> {
    pub filter: &'a str,
    pub qos: Qos,
}

/// Topic filters, at least one; checked when the packet was decoded.
#[derive(Debug, Clone, Copy)]
pub struct Unsubscribe<'a> {
    pub packet_id: u16,
    pub(super) filters: Reader<'a>,
}

impl<'a> Subscribe<'a> {
    pub fn subscriptions(&self) -> impl Iterator<Item = Subscription<'a>> + use<'a> {
        let (version, mut reader) = (self.version, self.filters);
        std::iter::from_fn(move || subscription(&mut reader, version).ok())
    }
}

impl<'a> Unsubscribe<'a> {
    pub fn filters(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut reader = self.filters;
        std::iter::from_fn(move || reader.string().ok())
    }
}

/// Reads one filter and its options.
pub(super) fn subscription<'a>(
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<Subscription<'a>, CodecError> {
    let filter = filter(reader)?;
    let options = reader.byte()?;
    let qos = Qos::of_bits(options)?;
    let reserved = match version {
        Version::V311 => 0b1111_1100,
        Version::V5 => 0b1100_0000,
    };
    if options & reserved != 0 {
        return Err(CodecError::Malformed("reserved bits of a subscription"));
    }
    if options >> 4 == 0b11 {
        return Err(CodecError::Protocol("retain handling 3"));
    }
    Ok(Subscription { filter, qos })
}

pub(super) fn filter<'a>(reader: &mut Reader<'a>) -> Result<&'a str, CodecError> {
    match reader.string()? {
        "" => Err(CodecError::Malformed("an empty topic filter")),
        filter => Ok(filter),
    }
}

impl PartialEq for Subscribe<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.packet_id == other.packet_id && self.subscriptions().eq(other.subscriptions())
    }
}

impl Eq for Subscribe<'_> {}

impl PartialEq for Unsubscribe<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.packet_id == other.packet_id && self.filters().eq(other.filters())
    }
}

impl Eq for Unsubscribe<'_> {}

/// A Topic Name: not empty, no wildcards.
pub(super) fn check_topic(topic: &str) -> Result<(), CodecError> {
    if topic.is_empty() {
        return Err(CodecError::Protocol("an empty topic name"));
    }
    if topic.contains(['+', '#']) {
        return Err(CodecError::TopicNameInvalid);
    }
    Ok(())
}

impl<'a> Connect<'a> {
    /// Notes what the properties of version 5 say, of which version 3.1.1 has none.
    pub(super) fn take_properties(&mut self, properties: &Properties<'a>) {
        self.session_expiry = properties.session_expiry.unwrap_or(0);
        self.receive_maximum = properties.receive_maximum.unwrap_or(u16::MAX);
        self.packet_bytes_max = properties.packet_bytes_max;
        self.wants_problem_information = properties.problem_information.unwrap_or(true);
        self.authentication_method = properties.authentication_method;
    }
}
