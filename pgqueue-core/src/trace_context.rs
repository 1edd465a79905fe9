//! Trace context in headers, as W3C Trace Context has it: what a publisher's span puts in, a handler's span is linked to.

use std::str::FromStr;

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    Message, NewMessage,
    traceparent::{self, TRACEPARENT, TRACESTATE},
};

/// Puts the span into the headers of messages that have no trace yet.
pub(crate) fn inject(span: &Span, messages: &mut [NewMessage]) {
    let context = span.context();
    let context = context.span();
    let context = context.span_context();
    if !context.is_valid() {
        return; // nobody records it
    }
    let flags = context.trace_flags().to_u8();
    let parent = format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id());
    let state = context.trace_state().header();
    for message in messages {
        message.add_trace(&parent, &state);
    }
}

/// Links the span to those that published the messages. Of a single message, that is its parent too.
pub(crate) fn link(span: &Span, messages: &[Message]) {
    if let [message] = messages
        && let Some(publisher) = publisher(message)
    {
        span.set_parent(Context::new().with_remote_span_context(publisher)).ok(); // nobody records it
    }
    for publisher in messages.iter().filter_map(publisher) {
        span.add_link(publisher);
    }
}

/// The span that published a message, as its headers say.
fn publisher(message: &Message) -> Option<SpanContext> {
    let parent = traceparent::parse(message.headers().get(TRACEPARENT)?)?;
    let state = message.headers().get(TRACESTATE).and_then(|state| TraceState::from_str(state).ok());
    Some(SpanContext::new(
        TraceId::from_hex(parent.trace_id).ok()?,
        SpanId::from_hex(parent.parent_id).ok()?,
        TraceFlags::new(u8::from_str_radix(parent.flags, 16).ok()?),
        true,
        state.unwrap_or_default(),
    ))
}
