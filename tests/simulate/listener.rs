//! Hears what the controller logs: into the trace, and counted, since a converged site says nothing.

use std::fmt::{Debug, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use embody::testing::model::Name;
use embody::testing::sim::centre::Centre;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

pub struct Ear {
    pub centre: Arc<Centre>,
    pub lines: Arc<AtomicU64>,
}

#[derive(Default)]
struct Line {
    text: String,
    about: Vec<Name>,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        if field.name() == "message" {
            self.text.insert_str(0, &value);
            return;
        }
        if let Ok(name) = value.trim_matches('"').rsplit('/').next().unwrap_or_default().parse()
            && matches!(field.name(), "server" | "binding" | "device" | "switch")
        {
            self.about.push(name);
        }
        let _ = write!(self.text, " {}={value}", field.name());
    }
}

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO && metadata.target().starts_with("embody")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.lines.fetch_add(1, Ordering::Relaxed);
        let about: Vec<&Name> = line.about.iter().collect();
        self.centre.note(&about, format!("{} {}", event.metadata().level(), line.text));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
