//! JSON at random, of which some is deep, and some numbers are absurd.

use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::text;

/// A value that is nested so deep at most.
pub(crate) fn value(rng: &mut Rng, depth: usize) -> Value {
    match rng.u8(..if depth == 0 { 7 } else { 10 }) {
        0 => Value::Null,
        1 => Value::Bool(rng.bool()),
        2..=4 => json!(rng.i64(-3..4)),
        5 => number(rng),
        6 => Value::String(text(rng)),
        7 => (0..rng.usize(..4)).map(|_| value(rng, depth - 1)).collect(),
        _ => object(rng, depth - 1),
    }
}

/// An object, of few names, so that some are alike.
pub(crate) fn object(rng: &mut Rng, depth: usize) -> Value {
    let mut members = Map::new();
    for _ in 0..rng.usize(..4) {
        let name = if rng.u8(..8) == 0 { text(rng) } else { ["a", "b", "n"][rng.usize(..3)].to_owned() };
        members.insert(name, value(rng, depth));
    }
    Value::Object(members)
}

/// A number at the edges of what there is.
fn number(rng: &mut Rng) -> Value {
    let double = [
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        5e-324,
        -0.0,
        0.1,
        1e22,
        9_007_199_254_740_993.0,
        f64::from_bits(rng.u64(..)),
    ];
    match rng.u8(..3) {
        0 => json!([u64::MAX, 1 << 63, 0][rng.usize(..3)]),
        1 => json!([i64::MIN, -1][rng.usize(..2)]),
        _ => json!(double[rng.usize(..double.len())]),
    }
}

/// Whether all numbers in it are such that every store knows them exactly.
pub(crate) fn is_plain(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_i64().is_some_and(|number| number.unsigned_abs() < 1000),
        Value::Array(elements) => elements.iter().all(is_plain),
        Value::Object(members) => members.values().all(is_plain),
        Value::String(text) => !text.contains('\0'),
        Value::Null | Value::Bool(_) => true,
    }
}
