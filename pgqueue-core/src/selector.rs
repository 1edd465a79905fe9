//! [`Selector`]: which of a topic's messages a subscription gets.

use std::{fmt, ops::Not};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Error, ErrorKind, Message, Result,
    json::{contains, is_same, number_at},
    limits::{MAX_TEXT_BYTES, check_text},
};

/// How many conditions one selector may have.
const MAX_CONDITIONS: usize = 100;

/// How deep conditions may be nested.
const MAX_DEPTH: usize = 10;

/// How deep the pattern of a payload may be nested.
const MAX_PATTERN_DEPTH: usize = 50;

/// How many bytes a selector may have as JSON.
const MAX_BYTES: usize = 64 * 1024;

/// A condition on messages, evaluated where the log is: what does not match never reaches the consumer, and counts as handled.
///
/// A message without what a condition asks for, such as a key, does not match it, and matches its negation.
///
/// ```
/// use pgqueue_core::{Comparison, Selector};
/// use serde_json::json;
///
/// let large_and_paid = Selector::kind("order.paid").and(Selector::number(["total"], Comparison::Greater, 1000.0));
/// let european = Selector::tags_any(["de", "fr"]).or(Selector::payload(json!({"address": {"continent": "EU"}})));
/// let selector = large_and_paid.and(european).and(!Selector::key_like("test-*"));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Selector(Condition);

/// The cases of a [`Selector`]. For authors of drivers, who evaluate it in their store.
///
/// As JSON it is an object of one member: `{"kinds": ["a", "b"]}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive] // headers and times may come
pub enum Condition {
    /// All of these hold: of none, everything.
    And(Vec<Condition>),
    /// One of these holds, or more: of none, nothing.
    Or(Vec<Condition>),
    /// This does not hold.
    Not(Box<Condition>),
    /// The key is this.
    Key(String),
    /// The key matches this glob.
    KeyLike(String),
    /// The kind is one of these: of none, nothing.
    Kinds(Vec<String>),
    /// The kind matches this glob.
    KindLike(String),
    /// One of these tags is there, or more: of none, nothing.
    TagsAny(Vec<String>),
    /// These tags are all there, and at least one: of none, nothing.
    TagsAll(Vec<String>),
    /// The payload is a JSON object that contains this one.
    Payload(Value),
    /// The payload is JSON with a number at this path, that compares so.
    Number {
        /// The names of members, from the outermost to the number's own.
        path: Vec<String>,
        /// How the number compares to `to`.
        is: Comparison,
        /// What it is compared to.
        to: f64,
    },
}

/// How a number compares to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// It is greater.
    Greater,
    /// It is greater or equal.
    GreaterOrEqual,
    /// It is less.
    Less,
    /// It is less or equal.
    LessOrEqual,
}

impl Selector {
    /// Selects every message. The default.
    #[must_use]
    pub const fn all() -> Self {
        Self(Condition::And(Vec::new()))
    }

    /// Selects messages of this very key.
    pub fn key(key: impl Into<String>) -> Self {
        Self(Condition::Key(key.into()))
    }

    /// Selects messages whose whole key matches a glob, in which `*` stands for any text, also none, and `?` for one character.
    pub fn key_like(glob: impl Into<String>) -> Self {
        Self(Condition::KeyLike(glob.into()))
    }

    /// Selects messages of this very kind.
    pub fn kind(kind: impl Into<String>) -> Self {
        Self::kinds([kind])
    }

    /// Selects messages of one of these kinds: of none, nothing.
    pub fn kinds(kinds: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(Condition::Kinds(texts(kinds)))
    }

    /// Selects messages whose whole kind matches a glob, as [`key_like`](Self::key_like) does for keys.
    pub fn kind_like(glob: impl Into<String>) -> Self {
        Self(Condition::KindLike(glob.into()))
    }

    /// Selects messages that have one of these tags, or more: of none, nothing.
    pub fn tags_any(tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(Condition::TagsAny(texts(tags)))
    }

    /// Selects messages that have all of these tags: of none, nothing.
    pub fn tags_all(tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(Condition::TagsAll(texts(tags)))
    }

    /// Selects messages whose payload is a JSON object that contains `pattern`: each of its members, and of lists each of their
    /// elements, anywhere in the list. It is PostgreSQL's `@>` (documentation, section 8.14.3).
    ///
    /// A `pattern` that is no object is refused when the subscription is inserted.
    #[must_use]
    pub const fn payload(pattern: Value) -> Self {
        Self(Condition::Payload(pattern))
    }

    /// Selects messages whose payload is JSON with a number at this path of members, that compares so. What is no number does
    /// not match.
    pub fn number(path: impl IntoIterator<Item = impl Into<String>>, is: Comparison, to: f64) -> Self {
        Self(Condition::Number { path: texts(path), is, to })
    }

    /// Selects what both select.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let mut conditions = match self.0 {
            Condition::And(conditions) => conditions,
            condition => vec![condition],
        };
        match other.0 {
            Condition::And(others) => conditions.extend(others),
            condition => conditions.push(condition),
        }
        match <[Condition; 1]>::try_from(conditions) {
            Ok([condition]) => Self(condition),
            Err(conditions) => Self(Condition::And(conditions)),
        }
    }

    /// Selects what one of them selects, or both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let mut conditions = match self.0 {
            Condition::Or(conditions) => conditions,
            condition => vec![condition],
        };
        conditions.push(other.0);
        Self(Condition::Or(conditions))
    }

    /// Returns the condition, for authors of drivers.
    #[must_use]
    pub fn condition(&self) -> &Condition {
        &self.0
    }

    /// Whether it selects every message, whatever that is.
    #[must_use]
    pub fn is_all(&self) -> bool {
        matches!(&self.0, Condition::And(conditions) if conditions.is_empty())
    }

    /// Whether it is the same selector, though a store may have written its numbers in another way.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let json = |selector: &Self| serde_json::to_value(selector).ok();
        json(self).zip(json(other)).is_some_and(|(one, other)| is_same(&one, &other))
    }

    /// Whether it selects a message. For drivers that evaluate it themselves; all must answer the same.
    ///
    /// Numbers are compared as integers or as 64-bit floats; of those that are no such number exactly, a store may know more. A
    /// payload that is no JSON matches no condition on payloads, nor does one that has a number beyond every float, U+0000, or is
    /// nested more than a hundred deep; there too, a store may read more.
    #[must_use]
    pub fn matches(&self, message: &Message) -> bool {
        let mut payload = None;
        self.0.holds(message, &mut payload)
    }

    /// Checks that every driver can evaluate it, as drivers do before they insert the subscription.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], naming the condition that cannot be used.
    pub fn validate(&self) -> Result<()> {
        let mut left = MAX_CONDITIONS;
        self.0.validate(MAX_DEPTH, &mut left)?;
        let bytes = serde_json::to_vec(self).map_or(usize::MAX, |json| json.len());
        if bytes > MAX_BYTES {
            return Err(invalid(format!("the selector has {bytes} bytes as JSON; the limit is {MAX_BYTES}")));
        }
        Ok(())
    }
}

impl Default for Selector {
    fn default() -> Self {
        Self::all()
    }
}

impl Not for Selector {
    type Output = Self;

    /// Selects what it does not select.
    fn not(self) -> Self {
        match self.0 {
            Condition::Not(condition) => Self(*condition),
            condition => Self(Condition::Not(Box::new(condition))),
        }
    }
}

impl fmt::Display for Selector {
    /// Writes it as JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Condition {
    fn holds(&self, message: &Message, payload: &mut Option<Value>) -> bool {
        match self {
            Self::And(conditions) => conditions.iter().all(|condition| condition.holds(message, payload)),
            Self::Or(conditions) => conditions.iter().any(|condition| condition.holds(message, payload)),
            Self::Not(condition) => !condition.holds(message, payload),
            Self::Key(key) => message.key() == Some(key),
            Self::KeyLike(glob) => message.key().is_some_and(|key| is_like(key, glob)),
            Self::Kinds(kinds) => message.kind().is_some_and(|kind| kinds.iter().any(|wanted| wanted == kind)),
            Self::KindLike(glob) => message.kind().is_some_and(|kind| is_like(kind, glob)),
            Self::TagsAny(tags) => tags.iter().any(|tag| message.tags().contains(tag)),
            Self::TagsAll(tags) => !tags.is_empty() && tags.iter().all(|tag| message.tags().contains(tag)),
            Self::Payload(pattern) => match (parsed(message, payload), pattern) {
                (Value::Object(members), Value::Object(pattern)) => contains(members, pattern),
                _ => false,
            },
            Self::Number { path, is, to } => number_at(parsed(message, payload), path).is_some_and(|number| match is {
                Comparison::Greater => number > *to,
                Comparison::GreaterOrEqual => number >= *to,
                Comparison::Less => number < *to,
                Comparison::LessOrEqual => number <= *to,
            }),
        }
    }

    fn validate(&self, depth: usize, left: &mut usize) -> Result<()> {
        let Some(deeper) = depth.checked_sub(1) else {
            return Err(invalid(format!("the selector's conditions are nested more than {MAX_DEPTH} deep")));
        };
        *left = left
            .checked_sub(1)
            .ok_or_else(|| invalid(format!("the selector has more than {MAX_CONDITIONS} conditions")))?;
        let check =
            |what, texts: &[String]| texts.iter().try_for_each(|text| check_text(what, text, 1, MAX_TEXT_BYTES));
        match self {
            Self::And(conditions) | Self::Or(conditions) => {
                conditions.iter().try_for_each(|condition| condition.validate(deeper, left))
            }
            Self::Not(condition) => condition.validate(deeper, left),
            Self::Key(key) | Self::KeyLike(key) => check_text("selector's key", key, 1, MAX_TEXT_BYTES),
            Self::KindLike(kind) => check_text("selector's kind", kind, 1, MAX_TEXT_BYTES),
            Self::Kinds(kinds) => check("selector's kind", kinds),
            Self::TagsAny(tags) | Self::TagsAll(tags) => check("selector's tag", tags),
            Self::Payload(pattern @ Value::Object(_)) => check_pattern(pattern, MAX_PATTERN_DEPTH),
            Self::Payload(_) => Err(invalid("the selector's pattern of payloads is no JSON object".to_owned())),
            Self::Number { path, to, .. } => {
                if path.is_empty() {
                    return Err(invalid("the selector compares a number and says no path to it".to_owned()));
                }
                if !to.is_finite() {
                    return Err(invalid(format!("the selector compares to {to}, which no JSON can hold")));
                }
                path.iter().try_for_each(|name| check_text("selector's member name", name, 0, MAX_TEXT_BYTES))
            }
        }
    }
}

/// No text of a pattern may have U+0000, which PostgreSQL's JSON cannot hold, and none may be nested deeper than can be read.
fn check_pattern(value: &Value, depth: usize) -> Result<()> {
    let deeper = depth.checked_sub(1).ok_or_else(|| {
        invalid(format!("the selector's pattern of payloads is nested more than {MAX_PATTERN_DEPTH} deep"))
    })?;
    match value {
        Value::String(text) => check_text("selector's text", text, 0, MAX_BYTES),
        Value::Array(elements) => elements.iter().try_for_each(|element| check_pattern(element, deeper)),
        Value::Object(members) => members.iter().try_for_each(|(name, value)| {
            check_text("selector's member name", name, 0, MAX_TEXT_BYTES)?;
            check_pattern(value, deeper)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

fn texts(texts: impl IntoIterator<Item = impl Into<String>>) -> Vec<String> {
    texts.into_iter().map(Into::into).collect()
}

/// The payload as JSON, read once; `Null` if it is none.
fn parsed<'a>(message: &Message, payload: &'a mut Option<Value>) -> &'a Value {
    payload.get_or_insert_with(|| crate::json::parse(message.payload()).unwrap_or_default())
}

/// Whether a glob matches a whole text.
fn is_like(text: &str, glob: &str) -> bool {
    let (text, glob): (Vec<char>, Vec<char>) = (text.chars().collect(), glob.chars().collect());
    let (mut at, mut in_glob) = (0, 0);
    let mut last_star = None; // where it stands, and up to where it reaches
    while at < text.len() {
        match glob.get(in_glob) {
            Some('*') => {
                last_star = Some((in_glob, at));
                in_glob += 1;
            }
            Some(wanted) if *wanted == '?' || *wanted == text[at] => {
                at += 1;
                in_glob += 1;
            }
            _ => {
                let Some((star, reach)) = last_star else { return false };
                last_star = Some((star, reach + 1));
                in_glob = star + 1;
                at = reach + 1;
            }
        }
    }
    glob[in_glob..].iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::json;

    use super::*;
    use crate::{MessageId, NewMessage, Position};

    fn message(content: NewMessage) -> Message {
        Message::new(MessageId::new("1"), Position::new("1"), "t", content, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn globs_match_whole_texts() {
        for (glob, matching, others) in [
            ("order-*", vec!["order-", "order-1", "order-*"], vec!["order", "my order-1", "Order-1"]),
            ("*.paid", vec![".paid", "a.paid", "a.b.paid", "paid.paid"], vec!["a.paid.", "paid"]),
            ("a*b*c", vec!["abc", "aXbXc", "abbcc", "abcbc"], vec!["ab", "acb", "abcd"]),
            ("?", vec!["a", "ß", "☃"], vec!["ab"]),
            ("100%_\\", vec!["100%_\\"], vec!["100xx\\", "100%x\\"]),
            ("*", vec!["a"], vec![]),
        ] {
            for text in matching {
                assert!(is_like(text, glob), "{glob} should match {text}");
            }
            for text in others {
                assert!(!is_like(text, glob), "{glob} should not match {text}");
            }
        }
    }

    #[test]
    fn what_is_missing_matches_only_negations() {
        let bare = message(NewMessage::new("no json"));
        for selector in [
            Selector::key("k"),
            Selector::key_like("*"),
            Selector::kind("k"),
            Selector::kind_like("*"),
            Selector::tags_any(["t"]),
            Selector::tags_all(["t"]),
            Selector::tags_all([""; 0]),
            Selector::kinds([""; 0]),
            Selector::payload(json!({})),
            Selector::number(["n"], Comparison::Less, 1.0),
            Selector(Condition::Or(vec![])),
        ] {
            assert!(!selector.matches(&bare), "{selector}");
            assert!((!selector.clone()).matches(&bare), "not {selector}");
        }
        assert!(Selector::all().matches(&bare) && Selector::all().is_all());
    }

    #[test]
    fn conditions_combine() {
        let paid = message(
            NewMessage::new(r#"{"total": 7, "lines": [{"sku": "a", "n": 2}]}"#).with_kind("paid").with_tag("eu"),
        );
        let (kind, tag) = (Selector::kind("paid"), Selector::tags_all(["eu"]));
        let large = Selector::number(["total"], Comparison::GreaterOrEqual, 7.0);
        let sku = Selector::payload(json!({"lines": [{"sku": "a"}]}));
        assert!(kind.clone().and(tag.clone()).and(large.clone()).and(sku.clone()).matches(&paid));
        assert!((!kind.clone()).or(sku).matches(&paid));
        assert!(!kind.clone().and(!large).matches(&paid));
        assert_eq!(Selector::all().and(kind.clone()), kind, "all is neutral");
        assert_eq!(!!tag.clone(), tag);
    }

    #[test]
    fn what_no_store_could_evaluate_is_refused_by_name() {
        let deep = (0..MAX_DEPTH).fold(Selector::key("k"), |selector, _| Selector(Condition::Or(vec![selector.0])));
        for (bad, says) in [
            (Selector::key(""), "selector's key \"\" is empty"),
            (Selector::kinds(["a", "b\0"]), "selector's kind \"b\\0\" has a NUL"),
            (Selector::tags_any(["x".repeat(2000)]), "the limit is 1024"),
            (Selector::payload(json!([1])), "pattern of payloads is no JSON object"),
            (Selector::payload(json!({"a": ["b\0"]})), "selector's text \"b\\0\" has a NUL"),
            (Selector::payload(json!({"a": "x".repeat(70_000)})), "the limit is 65536"),
            (Selector::number([""; 0], Comparison::Less, 1.0), "says no path"),
            (Selector::number(["n"], Comparison::Less, f64::INFINITY), "compares to inf"),
            (deep, "conditions are nested more than 10 deep"),
            (
                Selector::payload((0..60).fold(json!({}), |inner, _| json!({"a": [inner]}))),
                "payloads is nested more than 50 deep",
            ),
            (Selector(Condition::And(vec![Condition::Key("k".into()); 100])), "more than 100 conditions"),
        ] {
            let error = bad.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn selectors_travel_as_json() {
        let selector = Selector::kinds(["a"]).and(!Selector::key_like("k*")).and(Selector::payload(json!({"n": 1.5})));
        let json = r#"{"and":[{"kinds":["a"]},{"not":{"key_like":"k*"}},{"payload":{"n":1.5}}]}"#;
        assert_eq!(selector.to_string(), json);
        assert_eq!(serde_json::from_str::<Selector>(json).unwrap(), selector);
    }

    #[test]
    fn numbers_may_be_written_in_another_way() {
        let of = |number: Value| Selector::payload(json!({"list": [number]}));
        for (one, other) in [(json!(5.0), json!(5)), (json!(1e17), json!(100_000_000_000_000_000_u64))] {
            assert!(of(one.clone()).is_same(&of(other.clone())), "{one} and {other}");
        }
        assert!(!of(json!(5.0)).is_same(&of(json!(5.5))));
        let odd = Selector::number(["n"], Comparison::Less, 999.104_852_582_298_5);
        assert_eq!(serde_json::from_str::<Selector>(&odd.to_string()).unwrap(), odd);
    }
}
