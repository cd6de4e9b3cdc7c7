//! A layer that keeps the spans of the library with their fields.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, Once};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// A span of the library, or of a test.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub name: &'static str,
    pub target: &'static str,
    pub level: String,
    pub parent: Option<u64>,
    pub fields: BTreeMap<&'static str, String>,
    pub closed: bool,
    /// Events inside it, by their messages.
    pub events: Vec<String>,
}

static SPANS: Mutex<BTreeMap<u64, Seen>> = Mutex::new(BTreeMap::new());

/// The events of the library.
static EVENTS: Mutex<Vec<BTreeMap<&'static str, String>>> = Mutex::new(Vec::new());

struct Keep;

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl<S: Subscriber + for<'l> LookupSpan<'l>> Layer<S> for Keep {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let meta = attributes.metadata();
        let parent = context
            .span(id)
            .and_then(|span| span.parent())
            .map(|parent| numbered(&parent));
        let mut seen = Seen {
            name: meta.name(),
            target: meta.target(),
            level: meta.level().to_string(),
            parent,
            ..Seen::default()
        };
        attributes.record(&mut Fields(&mut seen.fields));
        let mut spans = SPANS.lock().unwrap();
        let number = spans.len() as u64;
        spans.insert(number, seen);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Number(number));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(seen) = SPANS.lock().unwrap().get_mut(&numbered(&span))
        {
            values.record(&mut Fields(&mut seen.fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        if event.metadata().target() == "lockkeeper" {
            EVENTS.lock().unwrap().push(fields.clone());
        }
        if let Some(span) = context.event_span(event)
            && let Some(seen) = SPANS.lock().unwrap().get_mut(&numbered(&span))
        {
            seen.events.extend(fields.remove("message"));
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if let Some(span) = context.span(&id)
            && let Some(seen) = SPANS.lock().unwrap().get_mut(&numbered(&span))
        {
            seen.closed = true;
        }
    }
}

/// Ids of spans are used again; these are not.
struct Number(u64);

fn numbered<'l, R: LookupSpan<'l>>(span: &tracing_subscriber::registry::SpanRef<'l, R>) -> u64 {
    span.extensions()
        .get::<Number>()
        .map_or(u64::MAX, |number| number.0)
}

/// Begins to keep spans, for all tests of this process.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::registry().with(Keep);
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
}

/// The spans so far that are as wanted, with their numbers.
pub fn spans(wanted: impl Fn(&Seen) -> bool) -> Vec<(u64, Seen)> {
    let spans = SPANS.lock().unwrap();
    spans
        .iter()
        .filter(|(_, seen)| wanted(seen))
        .map(|(&number, seen)| (number, seen.clone()))
        .collect()
}

/// The one span that is as wanted, once it is closed.
#[track_caller]
pub fn the_span(wanted: impl Fn(&Seen) -> bool) -> (u64, Seen) {
    crate::rt::until(|| spans(&wanted).iter().any(|(_, seen)| seen.closed));
    let mut found = spans(wanted);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

/// The events of the library with this message.
pub fn events(message: &str) -> Vec<BTreeMap<&'static str, String>> {
    let events = EVENTS.lock().unwrap();
    let is_it = |event: &&BTreeMap<_, String>| {
        event
            .get("message")
            .is_some_and(|given| given.as_str() == message)
    };
    events.iter().filter(is_it).cloned().collect()
}

pub fn forget_events() {
    EVENTS.lock().unwrap().clear();
}
