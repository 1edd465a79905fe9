//! [`TableName`], and names of our own making: written so that the server reads nothing else.

use std::fmt;

use pgqueue_core::{Error, ErrorKind, Result, key_hash};

/// The longest name in bytes (PostgreSQL's `NAMEDATALEN`, less one); the server cuts longer ones.
const MAX_NAME_BYTES: usize = 63;

/// The name of a table, taken literally: upper case, dots and quotes are part of it.
///
/// ```
/// use pgqueue_postgres::TableName;
///
/// assert_eq!(TableName::new("jobs").to_string(), r#""jobs""#);
/// assert_eq!(TableName::new("jobs").in_schema("app").to_string(), r#""app"."jobs""#);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableName {
    schema: Option<String>,
    name: String,
}

impl TableName {
    /// Names a table that is found by the connections' `search_path`.
    pub fn new(name: impl Into<String>) -> Self {
        Self { schema: None, name: name.into() }
    }

    /// Says which schema it is in.
    #[must_use]
    pub fn in_schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// Returns the name without its schema.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the schema, if it was said.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    pub(crate) fn validate(&self) -> Result<()> {
        self.schema.as_deref().map_or(Ok(()), |schema| ensure_name("schema", schema))?;
        ensure_name("table", &self.name)
    }
}

impl From<&str> for TableName {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for TableName {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

impl fmt::Display for TableName {
    /// Writes the name as SQL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", quoted(schema))?;
        }
        f.write_str(&quoted(&self.name))
    }
}

/// Refuses what no name can be.
pub(crate) fn ensure_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains('\0') {
        let message = format!("the name {name:?} of a {what} must have 1 to {MAX_NAME_BYTES} bytes and no NUL");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(())
}

/// Writes a name as SQL (PostgreSQL documentation, 4.1.1).
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Writes a text as SQL, whatever `standard_conforming_strings` is.
pub(crate) fn literal(text: &str) -> String {
    let escaped = text.replace('\'', "''");
    if escaped.contains('\\') { format!(" E'{}'", escaped.replace('\\', "\\\\")) } else { format!("'{escaped}'") }
}

/// Makes a name of `prefix` and `name`. What is too long ends in a hash of the whole, always the same.
pub(crate) fn fitting(prefix: &str, name: &str) -> String {
    let whole = format!("{prefix}{name}");
    if whole.len() <= MAX_NAME_BYTES {
        return whole;
    }
    let hash = format!("_{:08x}", key_hash(&whole));
    let kept = whole.floor_char_boundary(MAX_NAME_BYTES - hash.len());
    format!("{}{hash}", &whole[..kept])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted(r#"a"; drop table x; --"#), r#""a""; drop table x; --""#);
        assert_eq!(literal(r"it's \n"), r" E'it''s \\n'");
    }

    #[test]
    fn long_names_are_shortened_to_the_same_name_always() {
        assert_eq!(fitting("notify_", "jobs"), "notify_jobs");
        let long = "ü".repeat(40);
        let name = fitting("notify_", &long);
        assert!(name.len() <= MAX_NAME_BYTES && name.starts_with("notify_ü"), "{name}");
        assert_eq!(name, fitting("notify_", &long));
        assert_ne!(name, fitting("notify_", &format!("{long}a")));
    }

    #[test]
    fn impossible_names_are_refused() {
        for name in ["", "a\0b", &"a".repeat(64)] {
            assert_eq!(TableName::new(name).validate().unwrap_err().kind(), ErrorKind::Invalid);
        }
        TableName::new("a".repeat(63)).in_schema("app").validate().unwrap();
    }
}
