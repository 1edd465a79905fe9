//! [`Conditions`]: a selector as options of the command line.

use std::str::FromStr;

use clap::Args;
use pgqueue_core::{Comparison, Selector};
use serde_json::Value;

/// Which messages to print.
#[derive(Args)]
#[group(id = "conditions", multiple = true)]
#[command(next_help_heading = "Conditions, all of which a message meets")]
pub(crate) struct Conditions {
    /// This is the key; if given again, one of these
    #[arg(long, value_name = "K")]
    key: Vec<String>,

    /// The key is like this, where `*` is any text and `?` one character; if given again, like one of these
    #[arg(long, value_name = "GLOB")]
    key_glob: Vec<String>,

    /// This is the kind; if given again, one of these
    #[arg(long, value_name = "K")]
    kind: Vec<String>,

    /// The kind is like this; if given again, like one of these
    #[arg(long, value_name = "GLOB")]
    kind_glob: Vec<String>,

    /// This tag is there; if given again, all of these
    #[arg(long, value_name = "T")]
    tag: Vec<String>,

    /// This tag is there; if given again, one of these or more
    #[arg(long, value_name = "T")]
    any_tag: Vec<String>,

    /// The payload is a JSON object that contains this one, as in `{"status": "automatic"}`; if given again, all of these
    #[arg(long, value_name = "JSON", value_parser = Value::from_str)]
    payload: Vec<Value>,

    /// The payload has a number here that is greater; dots lead into inner objects, as in `address.zip=1000`
    #[arg(long, value_name = "FIELD=NUMBER", value_parser = limit)]
    greater: Vec<Limit>,

    /// The payload has a number here that is greater or equal
    #[arg(long, value_name = "FIELD=NUMBER", value_parser = limit)]
    greater_or_equal: Vec<Limit>,

    /// The payload has a number here that is less
    #[arg(long, value_name = "FIELD=NUMBER", value_parser = limit)]
    less: Vec<Limit>,

    /// The payload has a number here that is less or equal
    #[arg(long, value_name = "FIELD=NUMBER", value_parser = limit)]
    less_or_equal: Vec<Limit>,
}

/// What a number of the payload is compared to.
#[derive(Clone)]
struct Limit {
    path: Vec<String>,
    to: f64,
}

fn limit(text: &str) -> Result<Limit, String> {
    let (path, number) = text.split_once('=').ok_or("it says no number, as in `mag=4.5`")?;
    let to = number.parse().map_err(|_| format!("{number:?} is no number"))?;
    Ok(Limit { path: path.split('.').map(str::to_owned).collect(), to })
}

impl Conditions {
    pub(crate) fn selector(self) -> Selector {
        let limits = [
            (self.greater, Comparison::Greater),
            (self.greater_or_equal, Comparison::GreaterOrEqual),
            (self.less, Comparison::Less),
            (self.less_or_equal, Comparison::LessOrEqual),
        ];
        let numbers = limits
            .into_iter()
            .flat_map(|(limits, is)| limits.into_iter().map(move |Limit { path, to }| Selector::number(path, is, to)));
        let given = |texts: Vec<String>| (!texts.is_empty()).then_some(texts);
        let one_of =
            |texts: Vec<String>, selector: fn(String) -> Selector| texts.into_iter().map(selector).reduce(Selector::or);
        [
            one_of(self.key, Selector::key),
            one_of(self.key_glob, Selector::key_like),
            given(self.kind).map(Selector::kinds),
            one_of(self.kind_glob, Selector::kind_like),
            given(self.tag).map(Selector::tags_all),
            given(self.any_tag).map(Selector::tags_any),
        ]
        .into_iter()
        .flatten()
        .chain(self.payload.into_iter().map(Selector::payload))
        .chain(numbers)
        .fold(Selector::all(), Selector::and)
    }
}
