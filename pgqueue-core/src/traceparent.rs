//! The header by which a trace goes through a queue, as W3C Trace Context defines it.

/// The name of the header.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// The name of the header that says more, for those who know how to read it.
#[cfg(feature = "opentelemetry")]
pub(crate) const TRACESTATE: &str = "tracestate";

/// What a header's value says, `version-trace id-parent id-flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traceparent<'a> {
    pub(crate) trace_id: &'a str,
    pub(crate) parent_id: &'a str,
    pub(crate) flags: &'a str,
}

/// Reads a header's value; `None` if it is malformed, since then the standard wants all of it ignored.
pub(crate) fn parse(traceparent: &str) -> Option<Traceparent<'_>> {
    let mut fields = traceparent.split('-');
    let version = fields.next().filter(|version| is_hex(version, 2) && *version != "ff")?;
    let trace_id = fields.next().filter(|id| is_id(id, 32))?;
    let parent_id = fields.next().filter(|id| is_id(id, 16))?;
    let flags = fields.next().filter(|flags| is_hex(flags, 2))?;
    // Later versions may say more.
    (version != "00" || fields.next().is_none()).then_some(Traceparent { trace_id, parent_id, flags })
}

fn is_hex(field: &str, digits: usize) -> bool {
    field.len() == digits && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a field is an id: all zeros are none.
fn is_id(field: &str, digits: usize) -> bool {
    is_hex(field, digits) && field.bytes().any(|byte| byte != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "b7ad6b7169203331";

    #[test]
    fn a_trace_is_read_from_well_formed_values_only() {
        for well_formed in [
            format!("00-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-00"),
            format!("01-{TRACE}-{PARENT}-01"),
            format!("cc-{TRACE}-{PARENT}-01-and-more"),
        ] {
            let parsed = parse(&well_formed).map(|parsed| (parsed.trace_id, parsed.parent_id));
            assert_eq!(parsed, Some((TRACE, PARENT)), "{well_formed}");
        }
        let (zeros, upper, short) = ("0".repeat(32), TRACE.to_uppercase(), &TRACE[1..]);
        for malformed in [
            String::new(),
            TRACE.to_owned(),
            format!("00-{TRACE}"),
            format!("00-{TRACE}-{PARENT}"),
            format!("00-{TRACE}-{PARENT}-01-and-more"),
            format!("00-{TRACE}-{PARENT}-01-"),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("0-{TRACE}-{PARENT}-01"),
            format!("0x-{TRACE}-{PARENT}-01"),
            format!("00-{zeros}-{PARENT}-01"),
            format!("00-{upper}-{PARENT}-01"),
            format!("00-{short}-{PARENT}-01"),
            format!("00-{TRACE}0-{PARENT}-01"),
            format!("00-{short}g-{PARENT}-01"),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{TRACE}-{PARENT}0-01"),
            format!("00-{TRACE}-{PARENT}-1"),
            format!("00-{TRACE}-{PARENT}-0g"),
            format!(" 00-{TRACE}-{PARENT}-01"),
            format!("00_{TRACE}_{PARENT}_01"),
            "00-☃".to_owned(),
        ] {
            assert_eq!(parse(&malformed), None, "{malformed}");
        }
    }
}
