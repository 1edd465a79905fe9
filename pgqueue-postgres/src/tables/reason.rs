//! Reasons of answers, as PostgreSQL can hold them.

/// A text as PostgreSQL can hold it.
pub(crate) fn storable(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}
