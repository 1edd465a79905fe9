//! The OIDs of types that the columns of users' tables may have, as PostgreSQL's `pg_type.dat` has them.

pub(crate) const BOOLEAN: u32 = 16;
pub(crate) const BYTEA: u32 = 17;
pub(crate) const NAME: u32 = 19;
pub(crate) const BIGINT: u32 = 20;
pub(crate) const SMALLINT: u32 = 21;
pub(crate) const INTEGER: u32 = 23;
pub(crate) const TEXT: u32 = 25;
pub(crate) const JSON: u32 = 114;
pub(crate) const XML: u32 = 142;
pub(crate) const UNKNOWN: u32 = 705;
pub(crate) const CHARACTER: u32 = 1042;
pub(crate) const CHARACTER_VARYING: u32 = 1043;
pub(crate) const TIMESTAMP: u32 = 1114;
pub(crate) const TIMESTAMPTZ: u32 = 1184;
pub(crate) const UUID: u32 = 2950;
pub(crate) const JSONB: u32 = 3802;

/// The first OID of types that are not PostgreSQL's own, such as enums (`FirstNormalObjectId`).
pub(crate) const FIRST_OWN: u32 = 16384;
