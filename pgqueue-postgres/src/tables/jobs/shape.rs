//! [`Shape`]: what the server says of a job table's columns, and whether they serve.

use pgqueue_core::{Error, ErrorKind, Result};

use super::{names::UPDATED_AT, table::JobTable};
use crate::{
    Parameter, Row,
    tables::type_oid::{
        BIGINT, BYTEA, CHARACTER, CHARACTER_VARYING, INTEGER, JSON, JSONB, NAME, SMALLINT, TEXT, TIMESTAMP,
        TIMESTAMPTZ, UUID,
    },
    value::RowExt,
};

/// Reads the columns of a table from the catalogues, so that an empty table says as much as a full one: name, type, what is below a
/// domain, length, labels of an enum, whether the column alone names a row. `$1` is the table's name as SQL.
pub(super) const DESCRIBE: &str = "\
    select a.attname::text, \
           b.oid::int8, \
           b.typtype::text, \
           b.typcategory::text, \
           pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(b.typname), \
           case when b.oid in (1042, 1043) and m.typmod > 4 then m.typmod - 4 end, \
           (select pg_catalog.array_agg(e.enumlabel::text) from pg_catalog.pg_enum e where e.enumtypid = b.oid), \
           exists ( \
             select from pg_catalog.pg_index i \
             where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null \
               and a.attnum = any (i.indkey) and (i.indnkeyatts = 1 and i.indkey[0] = a.attnum or c.relkind = 'p') \
           ), \
           c.relkind::text \
    from pg_catalog.pg_class c \
    left join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
    left join pg_catalog.pg_type t on t.oid = a.atttypid \
    left join pg_catalog.pg_type b on b.oid = case t.typtype when 'd' then t.typbasetype else t.oid end \
    left join pg_catalog.pg_namespace n on n.oid = b.typnamespace \
    cross join lateral (select case t.typtype when 'd' then t.typtypmod else a.atttypmod end) m (typmod) \
    where c.oid = pg_catalog.to_regclass($1)";

const INTEGERS: [u32; 3] = [BIGINT, SMALLINT, INTEGER];
const TEXTS: [u32; 4] = [NAME, TEXT, CHARACTER, CHARACTER_VARYING];

/// What of a job table its statements depend on.
#[derive(Debug)]
pub(super) struct Shape {
    /// The type of ids.
    pub(super) id: u32,
    /// The type of the status, as SQL.
    pub(super) status: String,
    pub(super) locked_by: LockedBy,
    pub(super) locked_at: Time,
    pub(super) run_at: Time,
    pub(super) created_at: Time,
    /// The column, if there is one.
    pub(super) updated_at: Option<(String, Time)>,
    pub(super) payload: Payload,
    /// How many characters the last error may have, if there is a limit.
    pub(super) last_error_chars: Option<i32>,
}

/// How the consumer's name is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockedBy {
    Uuid,
    Text,
}

/// What a time is kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    WithZone,
    /// Without a time zone: in UTC.
    Utc,
}

/// What a payload is made of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// The row, as JSON.
    Row,
    /// A column that is handed out as it is.
    Plain(String),
    /// A column that is JSON already.
    Json(String),
    /// A column of another type, as JSON.
    ToJson(String),
}

/// A column as the server has it.
struct Column {
    name: String,
    /// Of a domain, what is below it.
    type_oid: u32,
    type_name: String,
    /// The characters that it has room for.
    chars: Option<i32>,
    /// `None` if it is no enum.
    labels: Option<Vec<String>>,
    is_unique: bool,
}

impl Shape {
    /// Reads the answer to [`DESCRIBE`], and refuses what cannot serve.
    pub(super) fn read<R: Row>(table: &JobTable, rows: &[R]) -> Result<Self> {
        let Some(first) = rows.first() else {
            let message = format!("the job table {} does not exist; create it, or correct its name", table.table);
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        if !["r", "p"].contains(&first.get::<String>(8)?.as_str()) {
            return Err(table.refused("it is not a table"));
        }
        let mut columns = Vec::new();
        for row in rows.iter().filter(|row| row.column(0).is_some()) {
            columns.push(Column {
                name: row.get(0)?,
                type_oid: u32::try_from(row.get::<i64>(1)?).unwrap_or_default(),
                type_name: row.get(4)?,
                chars: row.read(5)?,
                labels: row.read(6)?,
                is_unique: row.get(7)?,
            });
        }
        Columns { table, columns: &columns }.shape()
    }
}

/// The columns that there are, and those that are wanted.
struct Columns<'a> {
    table: &'a JobTable,
    columns: &'a [Column],
}

impl Columns<'_> {
    fn shape(&self) -> Result<Shape> {
        let wanted = &self.table.columns;
        let id = self.column(&wanted.id)?;
        if Parameter::array_of(id.type_oid, &[]).is_none() {
            return Err(
                self.unsuitable(id, "a type that PostgreSQL itself defines for keys, such as uuid, bigint or text")
            );
        }
        if !id.is_unique {
            let problem = format!("its column {:?} names no single job; make it the primary key, or unique", id.name);
            return Err(self.table.refused(&problem));
        }
        self.typed(&wanted.attempts, "an integer", &INTEGERS)?;
        let last_error = self.typed(&wanted.last_error, "a text", &TEXTS)?;
        for column in [&wanted.key, &wanted.kind].into_iter().flatten() {
            self.column(column)?;
        }
        let updated_at = match &wanted.updated_at {
            Some(name) => Some(name.as_str()),
            None => self.columns.iter().any(|column| column.name == UPDATED_AT).then_some(UPDATED_AT),
        };
        Ok(Shape {
            id: id.type_oid,
            status: self.status()?,
            locked_by: match self
                .typed(&wanted.locked_by, "a uuid or a text", &[&[UUID], &TEXTS[..]].concat())?
                .type_oid
            {
                UUID => LockedBy::Uuid,
                _ => LockedBy::Text,
            },
            locked_at: self.time(&wanted.locked_at)?,
            run_at: self.time(&wanted.run_at)?,
            created_at: self.time(&wanted.created_at)?,
            updated_at: updated_at.map(|name| Ok::<_, Error>((name.to_owned(), self.time(name)?))).transpose()?,
            payload: self.payload()?,
            last_error_chars: last_error.chars,
        })
    }

    fn column(&self, name: &str) -> Result<&Column> {
        self.columns.iter().find(|column| column.name == name).ok_or_else(|| {
            let problem = format!("it has no column {name:?}; add it, or say what it is called");
            self.table.refused(&problem)
        })
    }

    fn typed(&self, name: &str, wanted: &str, types: &[u32]) -> Result<&Column> {
        let column = self.column(name)?;
        if types.contains(&column.type_oid) { Ok(column) } else { Err(self.unsuitable(column, wanted)) }
    }

    fn unsuitable(&self, column: &Column, wanted: &str) -> Error {
        let Column { name, type_name, .. } = column;
        self.table.refused(&format!("its column {name:?} is of type {type_name}, and must be {wanted}"))
    }

    fn time(&self, name: &str) -> Result<Time> {
        let column = self.typed(name, "a timestamp", &[TIMESTAMP, TIMESTAMPTZ])?;
        Ok(if column.type_oid == TIMESTAMPTZ { Time::WithZone } else { Time::Utc })
    }

    /// The type of the status, which has room for every label.
    fn status(&self) -> Result<String> {
        let column = self.column(&self.table.columns.status)?;
        let has_room = |label: &str| match &column.labels {
            Some(labels) => labels.iter().any(|known| known == label),
            None => column.chars.is_none_or(|chars| label.chars().count() <= chars.unsigned_abs() as usize),
        };
        if column.labels.is_none() && !TEXTS.contains(&column.type_oid) {
            return Err(self.unsuitable(column, "an enum or a text"));
        }
        if let Some(label) = self.table.labels.all().into_iter().find(|label| !has_room(label)) {
            let Column { name, type_name, .. } = column;
            let problem = format!(
                "its column {name:?} of type {type_name} has no {label:?}; add it, or say what that state is called"
            );
            return Err(self.table.refused(&problem));
        }
        Ok(column.type_name.clone())
    }

    fn payload(&self) -> Result<Payload> {
        let Some(name) = &self.table.columns.payload else { return Ok(Payload::Row) };
        let make = match self.column(name)?.type_oid {
            oid if oid == BYTEA || TEXTS.contains(&oid) => Payload::Plain,
            JSON | JSONB => Payload::Json,
            _ => Payload::ToJson,
        };
        Ok(make(name.clone()))
    }
}
