//! Properties of version 5 (section 2.2.2.2): a length, then identifiers with their values.

use super::decode::CodecError;
use super::reader::Reader;

/// Property identifiers that a client may send.
mod id {
    pub const PAYLOAD_FORMAT: u8 = 0x01;
    pub const MESSAGE_EXPIRY: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_IDENTIFIER: u8 = 0x0b;
    pub const SESSION_EXPIRY: u8 = 0x11;
    pub const AUTHENTICATION_METHOD: u8 = 0x15;
    pub const AUTHENTICATION_DATA: u8 = 0x16;
    pub const PROBLEM_INFORMATION: u8 = 0x17;
    pub const WILL_DELAY: u8 = 0x18;
    pub const RESPONSE_INFORMATION: u8 = 0x19;
    pub const REASON_STRING: u8 = 0x1f;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const USER_PROPERTY: u8 = 0x26;
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
}

/// Where properties stand, which says which of them may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Connect,
    Will,
    Publish,
    Puback,
    Subscribe,
    Unsubscribe,
    Disconnect,
}

impl Place {
    fn allows(self, property: u8) -> bool {
        let allowed: &[u8] = match self {
            Self::Connect => &[
                id::SESSION_EXPIRY,
                id::RECEIVE_MAXIMUM,
                id::MAXIMUM_PACKET_SIZE,
                id::TOPIC_ALIAS_MAXIMUM,
                id::RESPONSE_INFORMATION,
                id::PROBLEM_INFORMATION,
                id::AUTHENTICATION_METHOD,
                id::AUTHENTICATION_DATA,
            ],
            Self::Will => &[
                id::WILL_DELAY,
                id::PAYLOAD_FORMAT,
                id::MESSAGE_EXPIRY,
                id::CONTENT_TYPE,
                id::RESPONSE_TOPIC,
                id::CORRELATION_DATA,
            ],
            Self::Publish => &[
                id::PAYLOAD_FORMAT,
                id::MESSAGE_EXPIRY,
                id::TOPIC_ALIAS,
                id::RESPONSE_TOPIC,
                id::CORRELATION_DATA,
                id::CONTENT_TYPE,
            ],
            Self::Puback => &[id::REASON_STRING],
            Self::Subscribe => &[id::SUBSCRIPTION_IDENTIFIER],
            Self::Unsubscribe => &[],
            Self::Disconnect => &[id::SESSION_EXPIRY, id::REASON_STRING],
        };
        property == id::USER_PROPERTY || allowed.contains(&property)
    }
}

/// Those that something here depends on; the others are checked and let go.
#[derive(Debug, Default)]
pub struct Properties<'a> {
    pub session_expiry: Option<u32>,
    pub receive_maximum: Option<u16>,
    pub packet_bytes_max: Option<u32>,
    pub problem_information: Option<bool>,
    pub authentication_method: Option<&'a str>,
    pub topic_alias: Option<u16>,
    pub has_subscription_identifier: bool,
}

impl<'a> Properties<'a> {
    /// Reads the properties that stand at `place`, their length before them.
    pub fn read(reader: &mut Reader<'a>, place: Place) -> Result<Self, CodecError> {
        let num_bytes = reader.variable()?;
        let num_bytes = usize::try_from(num_bytes).unwrap_or(usize::MAX);
        let mut values = Reader::new(reader.take(num_bytes)?);
        let mut properties = Self::default();
        // All identifiers are below 64.
        let mut seen = 0u64;
        while !values.is_empty() {
            let property = values.byte()?;
            if !place.allows(property) {
                return Err(CodecError::Malformed("a property that cannot stand here"));
            }
            let bit = 1 << (property & 63);
            if seen & bit != 0 && property != id::USER_PROPERTY {
                return Err(CodecError::Protocol("a property twice"));
            }
            seen |= bit;
            properties.read_value(property, &mut values)?;
        }
        Ok(properties)
    }

    fn read_value(&mut self, property: u8, values: &mut Reader<'a>) -> Result<(), CodecError> {
        match property {
            id::PAYLOAD_FORMAT | id::RESPONSE_INFORMATION => {
                flag(values)?;
            }
            id::PROBLEM_INFORMATION => self.problem_information = Some(flag(values)?),
            id::TOPIC_ALIAS_MAXIMUM => {
                values.two_bytes()?;
            }
            id::MESSAGE_EXPIRY | id::WILL_DELAY => {
                values.four_bytes()?;
            }
            id::SESSION_EXPIRY => self.session_expiry = Some(values.four_bytes()?),
            id::RECEIVE_MAXIMUM => self.receive_maximum = Some(not_zero(values.two_bytes()?)?),
            id::MAXIMUM_PACKET_SIZE => {
                self.packet_bytes_max = Some(not_zero(values.four_bytes()?)?);
            }
            id::TOPIC_ALIAS => match values.two_bytes()? {
                0 => return Err(CodecError::TopicAliasInvalid),
                alias => self.topic_alias = Some(alias),
            },
            id::SUBSCRIPTION_IDENTIFIER => {
                not_zero(values.variable()?)?;
                self.has_subscription_identifier = true;
            }
            id::CORRELATION_DATA | id::AUTHENTICATION_DATA => {
                values.binary()?;
            }
            id::AUTHENTICATION_METHOD => self.authentication_method = Some(values.string()?),
            id::USER_PROPERTY => {
                values.string()?;
                values.string()?;
            }
            // CONTENT_TYPE, RESPONSE_TOPIC, REASON_STRING: `Place::allows` lets no others through.
            _ => {
                values.string()?;
            }
        }
        Ok(())
    }
}

fn flag(values: &mut Reader<'_>) -> Result<bool, CodecError> {
    match values.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(CodecError::Protocol("a property that is neither 0 nor 1")),
    }
}

fn not_zero<T: Default + PartialEq>(value: T) -> Result<T, CodecError> {
    if value == T::default() {
        return Err(CodecError::Protocol("a property that is 0"));
    }
    Ok(value)
}
