//! Events as one JSON object a line.

use serde_json::{Map, Value, json};
use understudy_bus::events::StoredEvent;

/// One event: `kind` is the last token of its subject; `sequence` its place in the history, 0 when heard live; `data`
/// the protobuf JSON, or `raw` where the body is none; the rest are CloudEvents attributes and `traceparent`.
pub(crate) fn event(event: &StoredEvent) -> Value {
    let mut object = Map::new();
    for (name, value) in &event.attributes {
        let name = if name == "subject" { "group" } else { name };
        object.insert(name.to_owned(), value.clone().into());
    }
    object.insert("kind".to_owned(), event.kind().into());
    object.insert("sequence".to_owned(), event.sequence.into());
    match serde_json::from_slice::<Value>(&event.body) {
        Ok(data) => object.insert("data".to_owned(), data),
        Err(_) => object.insert("raw".to_owned(), String::from_utf8_lossy(&event.body).into()),
    };
    object.into()
}

/// Something that this process saw now.
pub(crate) fn now(kind: &str, time: &str, data: &Value) -> Value {
    json!({ "kind": kind, "time": time, "data": data })
}
