//! [`Clauses`]: what a base query ends with, read without understanding the rest.

use pgqueue_core::{Error, ErrorKind, Result};

/// The clauses outside of all parentheses, quotes and comments that decide whether a query can be locked row by row. Their first
/// words are reserved in PostgreSQL, so nothing else is called so.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Clauses {
    pub(crate) is_ordered: bool,
    /// What is the library's to append.
    pub(crate) appended: Option<&'static str>,
    pub(crate) has_semicolon: bool,
    /// Whether a parenthesis is closed that was not opened, or the other way round.
    pub(crate) is_unbalanced: bool,
}

impl Clauses {
    pub(crate) fn of(sql: &str) -> Self {
        let mut clauses = Self::default();
        let mut depth = 0_u32;
        let mut last_word = "";
        let mut rest = sql;
        while let Some(first) = rest.chars().next() {
            let length = match first {
                '\'' => quoted_length(rest, '\'', last_word.eq_ignore_ascii_case("e") && follows(sql, rest, last_word)),
                '"' => quoted_length(rest, '"', false),
                '-' if rest.starts_with("--") => rest.find(['\n', '\r']).unwrap_or(rest.len()),
                '/' if rest.starts_with("/*") => comment_length(rest),
                '$' => dollar_length(rest),
                '(' | '[' => {
                    depth += 1;
                    1
                }
                ')' | ']' => {
                    clauses.is_unbalanced |= depth == 0;
                    depth = depth.saturating_sub(1);
                    1
                }
                ';' => {
                    clauses.has_semicolon = true;
                    1
                }
                first if begins_name(first) => {
                    let is_part = |c: char| begins_name(c) || c.is_ascii_digit() || c == '$';
                    let word = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
                    if depth == 0 {
                        clauses.note(last_word, word);
                    }
                    last_word = word;
                    word.len()
                }
                other => other.len_utf8(),
            };
            rest = &rest[length..];
        }
        clauses.is_unbalanced |= depth > 0;
        clauses
    }

    fn note(&mut self, last_word: &str, word: &str) {
        const APPENDED: [&str; 4] = ["limit", "offset", "fetch", "for"];
        let appended = APPENDED.iter().find(|appended| word.eq_ignore_ascii_case(appended));
        self.appended = self.appended.or(appended.copied());
        self.is_ordered |= last_word.eq_ignore_ascii_case("order") && word.eq_ignore_ascii_case("by");
    }

    /// Refuses a query to which locking cannot be appended.
    pub(crate) fn ensure_lockable(&self, name: &str, must_be_ordered: bool) -> Result<()> {
        let invalid = |what: String| Err(Error::new(ErrorKind::Invalid, format!("the base query of {name:?} {what}")));
        if self.has_semicolon {
            return invalid("has a semicolon; it must be one SELECT, without its end".into());
        }
        if self.is_unbalanced {
            return invalid("has parentheses that do not match; it must be one SELECT, with nothing around it".into());
        }
        if let Some(appended) = self.appended {
            return invalid(format!("has a clause that is appended to it: {}", appended.to_uppercase()));
        }
        if must_be_ordered && !self.is_ordered {
            return invalid("has no ORDER BY, by which rows could be handed out in order".into());
        }
        Ok(())
    }
}

/// Whether a name may begin so, or the tag of a dollar quote (`ident_start` and `dolq_start` of PostgreSQL's `scan.l`).
fn begins_name(first: char) -> bool {
    first.is_ascii_alphabetic() || first == '_' || !first.is_ascii()
}

/// Whether `rest` begins where `word` ends.
fn follows(sql: &str, rest: &str, word: &str) -> bool {
    sql[..sql.len() - rest.len()].ends_with(word)
}

/// The length of what is quoted at the beginning; a doubled quote is part of it. What has escapes may go on in another line.
fn quoted_length(sql: &str, quote: char, has_escapes: bool) -> usize {
    let mut chars = sql.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && has_escapes {
            chars.next();
        } else if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            let next = blank_length(&sql[at + 1..]).map_or(sql.len(), |blank| at + 1 + blank);
            let goes_on = has_escapes && sql[next..].starts_with(quote) && sql[at..next].contains(['\n', '\r']);
            return if goes_on { next + quoted_length(&sql[next..], quote, true) } else { at + 1 };
        }
    }
    sql.len()
}

/// The length of blanks and comments of a line at the beginning; `None` if nothing follows.
fn blank_length(sql: &str) -> Option<usize> {
    let blank = sql.find(|c: char| !c.is_ascii_whitespace() && c != '\x0b')?;
    if !sql[blank..].starts_with("--") {
        return Some(blank);
    }
    let line = blank + sql[blank..].find(['\n', '\r'])?;
    Some(line + blank_length(&sql[line..])?)
}

/// The length of the comment at the beginning, with those that are nested in it.
fn comment_length(sql: &str) -> usize {
    let mut depth = 0_u32;
    let mut at = 0;
    while at < sql.len() {
        let rest = &sql[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    sql.len()
}

/// The length of the text between `$tag$` and `$tag$` at the beginning, or of a parameter's sign.
fn dollar_length(sql: &str) -> usize {
    let tag = sql[1..].find('$').map(|end| &sql[..end + 2]);
    let is_tag = |tag: &&str| {
        let name = &tag[1..tag.len() - 1];
        !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(|c| begins_name(c) || c.is_ascii_digit())
    };
    let Some(tag) = tag.filter(is_tag) else { return 1 };
    sql[tag.len()..].find(tag).map_or(sql.len(), |end| end + 2 * tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_are_found_whatever_is_around_them() {
        let ordered = |sql| Clauses::of(sql).is_ordered;
        assert!(ordered("select * from t order by id"));
        assert!(ordered("SELECT 'a''b; limit' FROM \"t;\"\nORDER /* for */ BY id -- limit 1"));
        assert!(!ordered("select * from (select * from t order by id) t"));
        assert!(!ordered("select row_number() over (order by id) from t where a = 'order by'"));
        assert!(!ordered("select $$ order by $$, $a$ order by $$ $a$, E'\\' order by' from t"));
        assert!(!ordered("select \"order\".by from t /* a /* b */ order by */"));
    }

    #[test]
    fn what_is_appended_is_refused() {
        for (sql, clause) in [
            ("select * from t order by id limit 1", "limit"),
            ("select * from t offset $1", "offset"),
            ("select * from t fetch first row only", "fetch"),
            ("select * from t for update", "for"),
        ] {
            assert_eq!(Clauses::of(sql).appended, Some(clause));
            assert!(Clauses::of(sql).ensure_lockable("jobs", false).is_err());
        }
        assert!(Clauses::of("select 1; drop table t").has_semicolon);
        assert_eq!(
            Clauses::of("select substring(a for 2), 'limit', \"for\", e'\\'' from t where b = $1"),
            Clauses::default()
        );
    }

    #[test]
    fn parentheses_match_as_the_server_reads_them() {
        let is_unbalanced = |sql| Clauses::of(sql).is_unbalanced;
        for sql in [
            "select 1) a, (select 1",
            "select (1",
            "select 1 -- \r)",
            "select E'a'\n'\\')' )'",
            "select E'a' -- b\n '\\')' )'",
            "select $☃$ ' $☃$) '",
            "select ☃$a$) $a$",
        ] {
            assert!(is_unbalanced(sql), "{sql}");
        }
        for sql in [
            "select (a[(1)])",
            "select ')', \")\", $$)$$, $ü$)$ü$, E'\\')' -- )",
            "select E'a'  '\\'",
            "select /*)*/ 1",
        ] {
            assert!(!is_unbalanced(sql), "{sql}");
        }
    }

    #[test]
    fn nothing_makes_it_panic() {
        for sql in ["'", "\"", "$", "$$", "$a", "/*", "--", "é'é", "$é$", "e'\\", ")))", "a$b$c"] {
            Clauses::of(sql);
        }
    }
}
