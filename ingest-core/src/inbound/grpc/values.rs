//! The values of the wire and those of the pipeline: MessagePack, JSON, `google.protobuf.Struct`, times, identifiers.
//!
//! A Struct knows only one kind of number. A whole one is written as an integer, since devices tell the two apart; an integer
//! beyond 2^53 is rounded on its way into a Struct.

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use uuid::Uuid;

use crate::event::metadata_to_json;
use crate::event::msgpack::{
    write_array_len, write_bool, write_f64, write_int, write_map_len, write_nil, write_str,
};

/// Whole numbers up to here are exact in a double.
const EXACT_INTEGER_MAX: f64 = 9_007_199_254_740_992.0;
const SECOND_US: i64 = 1_000_000;

/// Deeper than anything that the rules of metadata take.
const NESTING_MAX: u8 = 32;

/// Nested too deep, or a value that is none.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAValue;

/// Appends a Struct as a MessagePack map.
///
/// # Errors
/// [`NotAValue`]; `out` then holds a part of it.
pub fn write_struct(value: &Struct, out: &mut Vec<u8>) -> Result<(), NotAValue> {
    write_fields(&value.fields, NESTING_MAX, out)
}

/// Appends a map of texts as a MessagePack map.
pub fn write_texts(texts: &BTreeMap<String, String>, out: &mut Vec<u8>) {
    write_map_len(out, texts.len());
    for (key, text) in texts {
        write_str(out, key);
        write_str(out, text);
    }
}

fn write_fields(
    fields: &BTreeMap<String, Value>,
    nesting_left: u8,
    out: &mut Vec<u8>,
) -> Result<(), NotAValue> {
    let nesting_left = nesting_left.checked_sub(1).ok_or(NotAValue)?;
    write_map_len(out, fields.len());
    for (key, value) in fields {
        write_str(out, key);
        write_value(value, nesting_left, out)?;
    }
    Ok(())
}

fn write_value(value: &Value, nesting_left: u8, out: &mut Vec<u8>) -> Result<(), NotAValue> {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => write_nil(out),
        Some(Kind::BoolValue(value)) => write_bool(out, *value),
        Some(Kind::StringValue(text)) => write_str(out, text),
        Some(Kind::NumberValue(number)) => write_number(*number, out),
        Some(Kind::StructValue(value)) => write_fields(&value.fields, nesting_left, out)?,
        Some(Kind::ListValue(list)) => {
            let nesting_left = nesting_left.checked_sub(1).ok_or(NotAValue)?;
            write_array_len(out, list.values.len());
            for value in &list.values {
                write_value(value, nesting_left, out)?;
            }
        }
    }
    Ok(())
}

fn write_number(number: f64, out: &mut Vec<u8>) {
    if number.fract() == 0.0 && number.abs() <= EXACT_INTEGER_MAX {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "it is whole and within 2^53"
        )]
        write_int(out, number as i64);
    } else {
        write_f64(out, number);
    }
}

/// A MessagePack map that passed the rules of metadata, as JSON.
#[must_use]
pub fn json_of(map: &[u8]) -> Option<serde_json::Value> {
    let mut text = Vec::with_capacity(2 * map.len());
    metadata_to_json(map, &mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// A JSON object as a Struct; none for anything else.
#[must_use]
pub fn struct_of(json: serde_json::Value) -> Option<Struct> {
    match json {
        serde_json::Value::Object(members) => Some(Struct {
            fields: members
                .into_iter()
                .map(|(key, value)| (key, value_of(value)))
                .collect(),
        }),
        _ => None,
    }
}

fn value_of(json: serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(value),
        // A number that no double holds does not come out of the rules of metadata.
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => Kind::StringValue(text),
        serde_json::Value::Array(values) => Kind::ListValue(ListValue {
            values: values.into_iter().map(value_of).collect(),
        }),
        serde_json::Value::Object(members) => Kind::StructValue(Struct {
            fields: members
                .into_iter()
                .map(|(key, value)| (key, value_of(value)))
                .collect(),
        }),
    };
    Value { kind: Some(kind) }
}

/// A time of the wire: microseconds win over seconds, 0 is "not set".
#[must_use]
pub fn time_us(seconds: i64, microseconds: i64) -> Option<i64> {
    match (microseconds, seconds) {
        (0, 0) => None,
        (0, seconds) => Some(seconds.saturating_mul(SECOND_US)),
        (microseconds, _) => Some(microseconds),
    }
}

#[must_use]
pub fn seconds(time_us: i64) -> i64 {
    time_us.div_euclid(SECOND_US)
}

/// The text of a UUID.
#[must_use]
pub fn device_id(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            (-9_007_199_254_740_992i64..9_007_199_254_740_992).prop_map(Into::into),
            (-1e12..1e12f64).prop_map(Into::into),
            "[a-zéñ ]{0,8}".prop_map(Into::into),
        ];
        let inner = leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map("[a-z]{1,4}", inner, 0..4)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        });
        prop::collection::btree_map("[a-z]{1,4}", inner, 0..4)
            .prop_map(|members| members.into_iter().collect())
    }

    /// JSON knows 1 and 1.0, a Struct does not.
    fn without_kinds_of_numbers(json: &serde_json::Value) -> serde_json::Value {
        match json {
            serde_json::Value::Number(number) => serde_json::json!(number.as_f64()),
            serde_json::Value::Array(values) => {
                values.iter().map(without_kinds_of_numbers).collect()
            }
            serde_json::Value::Object(members) => members
                .iter()
                .map(|(key, value)| (key.clone(), without_kinds_of_numbers(value)))
                .collect(),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn a_struct_goes_to_a_device_and_comes_back_the_same(json in json()) {
            let sent = struct_of(json.clone()).unwrap();
            let mut bytes = Vec::new();
            write_struct(&sent, &mut bytes).unwrap();
            let heard = json_of(&bytes).unwrap();
            prop_assert_eq!(without_kinds_of_numbers(&heard), without_kinds_of_numbers(&json));
            prop_assert_eq!(struct_of(heard), Some(sent));
        }
    }

    #[test]
    fn a_whole_number_is_an_integer_for_the_device() {
        let sent = struct_of(serde_json::json!({"a": 7, "b": 7.5, "c": -1})).unwrap();
        let mut bytes = Vec::new();
        write_struct(&sent, &mut bytes).unwrap();
        let heard = json_of(&bytes).unwrap();
        assert_eq!(heard, serde_json::json!({"a": 7, "b": 7.5, "c": -1}));
    }

    #[test]
    fn what_is_nested_too_deep_is_refused() {
        let mut value = Value {
            kind: Some(Kind::BoolValue(true)),
        };
        for _ in 0..40 {
            value = Value {
                kind: Some(Kind::ListValue(ListValue {
                    values: vec![value],
                })),
            };
        }
        let nested = Struct {
            fields: BTreeMap::from([("k".to_owned(), value)]),
        };
        assert_eq!(write_struct(&nested, &mut Vec::new()), Err(NotAValue));
    }

    #[test]
    fn microseconds_win_over_seconds_and_zero_is_not_set() {
        assert_eq!(time_us(0, 0), None);
        assert_eq!(time_us(7, 0), Some(7_000_000));
        assert_eq!(time_us(7, 5), Some(5));
        assert_eq!(time_us(i64::MAX, 0), Some(i64::MAX));
        assert_eq!(seconds(-1), -1);
    }
}
