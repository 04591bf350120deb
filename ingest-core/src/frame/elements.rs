//! A positional array, element by element: those that were left out read as nil, those beyond are skipped.

use uuid::Uuid;

use super::FrameError;
use crate::event::msgpack::{MsgpackError, NESTING_MAX, Reader, Token};

#[derive(Debug, Clone)]
pub(super) struct Elements<'a> {
    reader: Reader<'a>,
    num_left: u32,
    /// How many arrays and maps an element may still open within each other.
    nesting_left: u8,
}

impl<'a> Elements<'a> {
    pub(super) fn of_body(body: &'a [u8]) -> Result<Self, FrameError> {
        Self::of_array(Reader::new(body), "body", NESTING_MAX)
    }

    /// `nesting_left` counts the array that is opened here.
    #[inline]
    pub(super) fn of_array(
        mut reader: Reader<'a>,
        element: &'static str,
        nesting_left: u8,
    ) -> Result<Self, FrameError> {
        match reader.token() {
            Ok(Token::Array(num_left)) => Ok(Self {
                reader,
                num_left,
                nesting_left: nesting_left.saturating_sub(1),
            }),
            Ok(_) => Err(wrong_type(element)),
            Err(source) => Err(FrameError::BadElement { element, source }),
        }
    }

    /// The elements that come after the list in which this one's reader stands.
    pub(super) fn reader(&self) -> Reader<'a> {
        self.reader
    }

    /// Goes on at another place: behind a list that was read by itself.
    pub(super) fn resume_at(&mut self, reader: Reader<'a>) {
        self.reader = reader;
    }

    pub(super) fn nesting_left(&self) -> u8 {
        self.nesting_left
    }

    pub(super) fn uint(&mut self, element: &'static str) -> Result<u64, FrameError> {
        match self.required(element)? {
            Token::Uint(value) => Ok(value),
            _ => Err(wrong_type(element)),
        }
    }

    pub(super) fn int(&mut self, element: &'static str) -> Result<i64, FrameError> {
        self.optional_int(element)?
            .ok_or(FrameError::Missing { element })
    }

    /// Integers beyond `i64` become its maximum: as a time that is further ahead than any that is taken.
    #[inline]
    pub(super) fn optional_int(
        &mut self,
        element: &'static str,
    ) -> Result<Option<i64>, FrameError> {
        match self.token(element)? {
            Token::Nil => Ok(None),
            Token::Uint(value) => Ok(Some(i64::try_from(value).unwrap_or(i64::MAX))),
            Token::Negative(value) => Ok(Some(value)),
            _ => Err(wrong_type(element)),
        }
    }

    #[inline]
    pub(super) fn str(&mut self, element: &'static str) -> Result<&'a str, FrameError> {
        self.optional_str(element)?
            .ok_or(FrameError::Missing { element })
    }

    #[inline]
    pub(super) fn optional_str(
        &mut self,
        element: &'static str,
    ) -> Result<Option<&'a str>, FrameError> {
        match self.token(element)? {
            Token::Nil => Ok(None),
            Token::Str(text) => Ok(Some(text)),
            _ => Err(wrong_type(element)),
        }
    }

    /// Integers, floats and booleans.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a value is a float; integers beyond 2^53 are rounded"
    )]
    #[inline]
    pub(super) fn optional_number(
        &mut self,
        element: &'static str,
    ) -> Result<Option<f64>, FrameError> {
        Ok(Some(match self.token(element)? {
            Token::Nil => return Ok(None),
            Token::Bool(value) => f64::from(u8::from(value)),
            Token::Uint(value) => value as f64,
            Token::Negative(value) => value as f64,
            Token::Float32(value) => f64::from(value),
            Token::Float64(value) => value,
            _ => return Err(wrong_type(element)),
        }))
    }

    /// A map as the bytes that encode it, well-formed.
    #[inline]
    pub(super) fn optional_map(
        &mut self,
        element: &'static str,
    ) -> Result<Option<&'a [u8]>, FrameError> {
        let before = self.reader;
        match self.token(element)? {
            Token::Nil => Ok(None),
            map @ Token::Map(_) => {
                self.reader
                    .skip_rest_of(map, self.nesting_left)
                    .map_err(|source| FrameError::BadElement { element, source })?;
                Ok(Some(self.reader.since(&before)))
            }
            _ => Err(wrong_type(element)),
        }
    }

    pub(super) fn map(&mut self, element: &'static str) -> Result<&'a [u8], FrameError> {
        self.optional_map(element)?
            .ok_or(FrameError::Missing { element })
    }

    /// The device of a HELLO: 16 bytes or the text of a UUID.
    pub(super) fn device_id(&mut self) -> Result<Uuid, FrameError> {
        match self.required("device_id")? {
            Token::Bin(bytes) => Uuid::from_slice(bytes).map_err(|_| FrameError::BadDeviceId),
            Token::Str(text) => Uuid::try_parse(text).map_err(|_| FrameError::BadDeviceId),
            _ => Err(wrong_type("device_id")),
        }
    }

    /// The device of an event: 16 bytes.
    #[inline]
    pub(super) fn optional_device_id(&mut self) -> Result<Option<Uuid>, FrameError> {
        match self.token("device_id")? {
            Token::Nil => Ok(None),
            Token::Bin(bytes) => Uuid::from_slice(bytes)
                .map(Some)
                .map_err(|_| FrameError::BadDeviceId),
            _ => Err(wrong_type("device_id")),
        }
    }

    /// Opens a list; its elements are read by the caller, from [`Elements::reader`] on.
    pub(super) fn array_len(&mut self, element: &'static str) -> Result<u32, FrameError> {
        match self.required(element)? {
            Token::Array(length) => Ok(length),
            _ => Err(wrong_type(element)),
        }
    }

    /// Like [`Elements::array_len`], a list that was left out having no elements.
    pub(super) fn optional_array_len(&mut self, element: &'static str) -> Result<u32, FrameError> {
        match self.token(element)? {
            Token::Nil => Ok(0),
            Token::Array(length) => Ok(length),
            _ => Err(wrong_type(element)),
        }
    }

    /// Skips the elements beyond those known; what is left is what follows the array.
    #[inline]
    pub(super) fn end(mut self) -> Result<Reader<'a>, FrameError> {
        for _ in 0..self.num_left {
            self.reader
                .skip(self.nesting_left)
                .map_err(|source| FrameError::BadElement {
                    element: "an element beyond those known",
                    source,
                })?;
        }
        Ok(self.reader)
    }

    /// Ends a body, after which nothing may follow.
    pub(super) fn end_body(self) -> Result<(), FrameError> {
        match self.end()?.rest().len() {
            0 => Ok(()),
            num_bytes => Err(FrameError::BytesLeftOver { num_bytes }),
        }
    }

    fn required(&mut self, element: &'static str) -> Result<Token<'a>, FrameError> {
        match self.token(element)? {
            Token::Nil => Err(FrameError::Missing { element }),
            token => Ok(token),
        }
    }

    #[inline]
    fn token(&mut self, element: &'static str) -> Result<Token<'a>, FrameError> {
        let Some(num_left) = self.num_left.checked_sub(1) else {
            return Ok(Token::Nil);
        };
        self.num_left = num_left;
        self.reader
            .token()
            .map_err(|source| FrameError::BadElement { element, source })
    }
}

fn wrong_type(element: &'static str) -> FrameError {
    FrameError::BadElement {
        element,
        source: MsgpackError::WrongType,
    }
}
