//! [`Keys`]: which rows a delivery has.

use pgqueue_core::{Error, ErrorKind, Result};

use super::columns::find;
use crate::{Parameter, Row};

/// The keys of rows, as the user's statements get them.
#[derive(Debug)]
pub(super) struct Keys {
    all: Parameter,
    /// The type of one, and all in binary format.
    type_oid: u32,
    values: Vec<Vec<u8>>,
}

impl Keys {
    /// Reads the keys of rows, of which there are some.
    pub(super) fn of(rows: &[impl Row], column: &str, name: &str) -> Result<Self> {
        let key = |row| Ok(Row::column(row, find(row, column)?).ok_or_else(|| keyless(name, column))?.to_vec());
        let values = rows.iter().map(key).collect::<Result<Vec<_>>>()?;
        let type_oid = rows.first().and_then(|row| row.type_oid(row.find(column)?));
        let keys = type_oid.and_then(|type_oid| Some((Parameter::array_of(type_oid, &values)?, type_oid)));
        let (all, type_oid) = keys.ok_or_else(|| unusable(name, column))?;
        Ok(Self { all, type_oid, values })
    }

    pub(super) fn all(&self) -> &Parameter {
        &self.all
    }

    /// The keys at such places, and how many; `None` if there are none.
    pub(super) fn at(&self, is_wanted: impl Fn(usize) -> bool) -> Option<(Parameter, usize)> {
        let wanted = self.values.iter().enumerate().filter(|(at, _)| is_wanted(*at)).map(|(_, value)| value.clone());
        let wanted: Vec<_> = wanted.collect();
        if wanted.is_empty() { None } else { Some((Parameter::array_of(self.type_oid, &wanted)?, wanted.len())) }
    }
}

pub(super) fn keyless(name: &str, key: &str) -> Error {
    Error::new(ErrorKind::Decode, format!("a row of {name:?} has no {key:?}, by which it could be found again"))
}

/// Of a key whose type cannot be one.
pub(super) fn unusable(name: &str, key: &str) -> Error {
    let message =
        format!("the column {key:?} of {name:?} has a type that cannot be a key; cast it to text in the base query");
    Error::new(ErrorKind::Invalid, message)
}
