//! [`Heard`]: what is said to `tracing`, for tests.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

/// Writes down the fields of events.
#[derive(Clone)]
pub(crate) struct Heard {
    target: &'static str,
    fields: Arc<Mutex<Vec<String>>>,
}

impl Heard {
    /// Hears those whose target begins so.
    pub(crate) fn of(target: &'static str) -> Self {
        Self { target, fields: Arc::default() }
    }

    pub(crate) fn fields(&self) -> Vec<String> {
        self.fields.lock().unwrap().clone()
    }
}

impl Visit for Heard {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.lock().unwrap().push(format!("{field}={value:?}"));
    }
}

impl Subscriber for Heard {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with(self.target)
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
