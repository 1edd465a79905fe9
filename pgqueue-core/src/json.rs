//! JSON as PostgreSQL's `jsonb` compares it.

use serde_json::{Map, Number, Value};

/// Reads what PostgreSQL would read: texts without U+0000.
pub(crate) fn parse(json: &[u8]) -> Option<Value> {
    let value = serde_json::from_slice(json).ok()?;
    is_storable(&value).then_some(value)
}

fn is_storable(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.contains('\0'),
        Value::Array(elements) => elements.iter().all(is_storable),
        Value::Object(members) => members.iter().all(|(name, value)| !name.contains('\0') && is_storable(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

/// Whether an object has all members of a pattern, with values that contain the pattern's.
pub(crate) fn contains(members: &Map<String, Value>, pattern: &Map<String, Value>) -> bool {
    pattern.iter().all(|(name, wanted)| members.get(name).is_some_and(|value| value_contains(value, wanted)))
}

fn value_contains(value: &Value, pattern: &Value) -> bool {
    match (value, pattern) {
        (Value::Object(members), Value::Object(pattern)) => contains(members, pattern),
        (Value::Array(elements), Value::Array(pattern)) => {
            pattern.iter().all(|wanted| elements.iter().any(|element| value_contains(element, wanted)))
        }
        (Value::Number(one), Value::Number(other)) => is_equal(one, other),
        (value, pattern) => value == pattern,
    }
}

/// Whether two values are the same but for how their numbers are written.
pub(crate) fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, value)| other.get(name).is_some_and(|other| is_same(value, other)))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::Number(one), Value::Number(other)) => is_equal(one, other),
        (one, other) => one == other,
    }
}

fn is_equal(one: &Number, other: &Number) -> bool {
    match (one.as_i128(), other.as_i128()) {
        (Some(one), Some(other)) => one == other,
        _ => one.as_f64() == other.as_f64(),
    }
}

/// The number at a path of members.
pub(crate) fn number_at(value: &Value, path: &[String]) -> Option<f64> {
    path.iter().try_fold(value, |value, name| value.as_object()?.get(name))?.as_f64()
}
