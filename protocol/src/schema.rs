//! JSON schemas of the wire types, for editors and for clients in other languages.
//!
//! What the daemon writes is described as it is written (fields with a default are always there), what it reads as
//! it may be sent. `docs/reference/*.schema.json` are these, and a test keeps them so.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::control::{ErrorObject, Notice, Reply, Request, RequestId};
use crate::events::Event;
use crate::status::{StatusDocument, StatusError, StatusRequest};
use crate::worker;

/// The status document.
#[must_use]
pub fn status() -> Value {
    let mut written = written();
    let document = written.root_schema_for::<StatusDocument>().to_value();
    with_title(document, "agentd status document, schema 1")
}

/// One line of a watched `status.sock` after the first, and what a client may send there.
#[must_use]
pub fn events() -> Value {
    let (mut written, mut read) = (written(), read());
    let event = reference::<Event>(&mut written);
    let error = reference::<StatusError>(&mut written);
    reference::<StatusRequest>(&mut read);
    root("agentd events, schema 1", &json!([event, error]), definitions(written, read))
}

/// Every line of `control.sock`, in both directions.
#[must_use]
pub fn control() -> Value {
    let (mut written, mut read) = (written(), read());
    let request = reference::<Request>(&mut read);
    let id = reference::<RequestId>(&mut written);
    let reply = reference::<Reply>(&mut written);
    let error = reference::<ErrorObject>(&mut written);
    reference::<Notice>(&mut written);
    let mut definitions = definitions(written, read);
    let notices = definitions.remove("Notice").unwrap_or_default();
    let notices = notices["oneOf"].as_array().cloned().unwrap_or_default();
    let version = json!({ "const": "2.0" });
    let mut add = |name: &str, description: &str, body: Value| {
        let mut body = body;
        body["type"] = "object".into();
        body["description"] = description.into();
        definitions.insert(name.to_owned(), body);
    };
    add(
        "Call",
        "A client's line.",
        json!({
            "properties": { "jsonrpc": version, "id": id },
            "required": ["jsonrpc", "id", "method"],
            "allOf": [request],
        }),
    );
    add(
        "Answer",
        "The daemon's one answer to a call.",
        json!({
            "properties": { "jsonrpc": version, "id": { "anyOf": [id, { "type": "null" }] } },
            "required": ["jsonrpc", "id"],
            "oneOf": [
                { "properties": { "result": reply }, "required": ["result"] },
                { "properties": { "error": error }, "required": ["error"] },
            ],
        }),
    );
    let lines: Vec<Value> = notices.iter().map(|notice| notice_line(notice, &version, &id)).collect();
    add("Notice", "What the daemon tells on the way to an answer.", json!({ "oneOf": lines }));
    let lines = ["Call", "Answer", "Notice"].map(|name| json!({ "$ref": format!("#/$defs/{name}") }));
    root("agentd control protocol 1", &json!(lines), definitions)
}

/// Every line of `worker.sock`, in both directions.
#[must_use]
pub fn worker() -> Value {
    let (mut written, mut read) = (written(), read());
    let request = reference::<worker::Request<'_>>(&mut read);
    let message = reference::<worker::Message<'_>>(&mut written);
    let refusal = reference::<worker::Refusal<'_>>(&mut written);
    let bodies = [
        ("hello", reference::<worker::Welcome<'_>>(&mut written)),
        ("task.begin", reference::<worker::Begun<'_>>(&mut written)),
        ("effect.begin", reference::<worker::Effected<'_>>(&mut written)),
        ("kv.put", reference::<worker::Put>(&mut written)),
        ("kv.get", reference::<worker::Found<'_>>(&mut written)),
        ("kv.scan", reference::<worker::Page<'_>>(&mut written)),
        ("kv.del", reference::<worker::Deleted>(&mut written)),
        ("every other", reference::<worker::Nothing>(&mut written)),
    ];
    let mut definitions = definitions(written, read);
    let number = json!({ "type": "integer", "format": "uint64", "minimum": 0 });
    let line = json!({
        "type": "object",
        "description": "A worker's line: a request, with a number when an answer is wanted.",
        "properties": { "n": number },
        "required": ["t"],
        "allOf": [request],
    });
    let answers: Vec<Value> =
        bodies.iter().map(|(to, body)| json!({ "description": format!("To {to}."), "allOf": [body] })).collect();
    let answer = json!({
        "type": "object",
        "description": "The daemon's one answer to a line with a number.",
        "properties": { "re": number, "ok": { "const": true } },
        "required": ["re", "ok"],
        "anyOf": answers,
    });
    definitions.insert("Line".to_owned(), line);
    definitions.insert("Answer".to_owned(), answer);
    let lines = json!([{ "$ref": "#/$defs/Line" }, { "$ref": "#/$defs/Answer" }, refusal, message]);
    root("agentd worker protocol agentd/1", &lines, definitions)
}

/// The type's shape is `{method, value}`; the line wraps the value with the call that it is about.
fn notice_line(notice: &Value, version: &Value, id: &Value) -> Value {
    let value = &notice["properties"]["value"];
    json!({
        "description": notice["description"],
        "properties": {
            "jsonrpc": version,
            "method": notice["properties"]["method"],
            "params": { "type": "object", "properties": { "call": id, "value": value }, "required": ["call", "value"] },
        },
        "required": ["jsonrpc", "method", "params"],
    })
}

fn written() -> SchemaGenerator {
    SchemaSettings::draft2020_12().for_serialize().into_generator()
}

fn read() -> SchemaGenerator {
    SchemaSettings::draft2020_12().for_deserialize().into_generator()
}

fn reference<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

/// The definitions of both directions. A type that goes both ways must look the same in both.
fn definitions(mut written: SchemaGenerator, mut read: SchemaGenerator) -> Map<String, Value> {
    let mut all = written.take_definitions(true);
    for (name, schema) in read.take_definitions(true) {
        if let Some(other) = all.insert(name.clone(), schema.clone()) {
            assert!(other == schema, "{name} is read and written, and differs: give it two types");
        }
    }
    all
}

fn root(title: &str, any_of: &Value, definitions: Map<String, Value>) -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "anyOf": any_of,
        "$defs": definitions,
    })
}

fn with_title(mut schema: Value, title: &str) -> Value {
    schema["title"] = title.into();
    schema
}
