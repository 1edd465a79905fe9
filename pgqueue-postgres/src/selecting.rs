//! Selectors as the server evaluates them: in part by plain comparisons, which are fast, and for the rest as JSON.

use pgqueue_core::{Condition, Error, ErrorKind, Result, Selector};

use crate::Parameter;

/// What the log is asked for: a message has to meet each of these that is there.
#[derive(Debug, Default, PartialEq)]
struct Asked<'a> {
    key: Option<&'a str>,
    kinds: Option<&'a [String]>,
    tags_any: Option<&'a [String]>,
    tags_all: Option<&'a [String]>,
    rest: Vec<&'a Condition>,
}

impl<'a> Asked<'a> {
    fn of(condition: &'a Condition) -> Self {
        let mut asked = Self::default();
        asked.add(condition);
        asked
    }

    fn add(&mut self, condition: &'a Condition) {
        match condition {
            Condition::And(conditions) => conditions.iter().for_each(|condition| self.add(condition)),
            Condition::Key(key) if self.key.is_none() => self.key = Some(key),
            Condition::Kinds(kinds) if self.kinds.is_none() => self.kinds = Some(kinds),
            Condition::TagsAny(tags) if self.tags_any.is_none() => self.tags_any = Some(tags),
            // Of no tags at all, every message would have all.
            Condition::TagsAll(tags) if self.tags_all.is_none() && !tags.is_empty() => self.tags_all = Some(tags),
            other => self.rest.push(other),
        }
    }
}

/// The parameters of [`INSERT_SUBSCRIPTION`](crate::statement::INSERT_SUBSCRIPTION) that say what it selects.
pub(crate) fn write(selector: &Selector) -> Result<[Parameter; 6]> {
    let Asked { key, kinds, tags_any, tags_all, rest } = Asked::of(selector.condition());
    let array = |texts: Option<&[String]>| match texts {
        Some(texts) => Parameter::array(texts.iter().map(|text| Some(text.as_str()))),
        None => Parameter::sparse_array([None::<&str>]),
    };
    let rest = match rest.as_slice() {
        [] => None,
        [condition] => Some(json(condition)?),
        conditions => Some(format!("{{\"and\":{}}}", json(&conditions)?)),
    };
    let whole = if selector.is_all() { None } else { Some(json(selector)?) };
    Ok([
        Parameter::nullable(whole),
        Parameter::nullable(key),
        array(kinds)?,
        array(tags_any)?,
        array(tags_all)?,
        Parameter::nullable(rest),
    ])
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|source| Error::new(ErrorKind::Invalid, "the selector cannot be written as JSON").with_source(source))
}

/// Reads a selector as the server has it.
pub(crate) fn read(json: Option<String>) -> Result<Selector> {
    let Some(json) = json else { return Ok(Selector::all()) };
    serde_json::from_str(&json).map_err(|source| {
        Error::new(ErrorKind::Fatal, format!("the selector {json} is newer than this binary")).with_source(source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_must_meet_is_asked_for_plainly() {
        let selector =
            Selector::kind("a").and(Selector::tags_all(["t"])).and(Selector::key("k").or(Selector::key("l")));
        let asked = Asked::of(selector.condition());
        assert_eq!((asked.kinds, asked.tags_all), (Some(&["a".to_owned()][..]), Some(&["t".to_owned()][..])));
        assert!(asked.key.is_none() && asked.rest.len() == 1);

        let twice = Selector::key("k").and(Selector::key("l")).and(Selector::tags_all([""; 0]));
        let asked = Asked::of(twice.condition());
        assert_eq!((asked.key, asked.tags_all), (Some("k"), None));
        assert_eq!(asked.rest.len(), 2);
    }
}
