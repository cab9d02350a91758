//! The JSON schema of a configuration file, for editors.
//!
//! Made from the lists of keys that the reader itself goes by. It holds what this version acts on; what it refuses is
//! left out, so that an editor marks it. Forms within texts (durations, addresses) are described, not enforced.

use serde_json::{Map, Value, json};

use super::form::{Form, Support, Table};
use super::keys::DOCUMENT;

/// The schema, in draft 2020-12.
#[must_use]
pub fn schema() -> Value {
    let mut schema = table(&DOCUMENT);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("agentd configuration");
    schema
}

fn table(table: &Table) -> Value {
    let known = table.keys().filter(|key| key.support == Support::Now);
    let properties: Map<String, Value> = known
        .map(|key| {
            let mut value = form(&key.form);
            value["description"] = json!(key.about);
            (key.name.to_owned(), value)
        })
        .collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn form(of: &Form) -> Value {
    match of {
        Form::Flag => json!({ "type": "boolean" }),
        Form::Count(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Form::Counts(like, min, max) => {
            let item = json!({ "type": "integer", "minimum": min, "maximum": max });
            json!({ "type": "array", "items": item, "title": like })
        }
        Form::Fraction(above, below) => {
            json!({ "type": "number", "exclusiveMinimum": above, "exclusiveMaximum": below })
        }
        Form::Text(like) => json!({ "type": "string", "title": like }),
        Form::Texts(like) => json!({ "type": "array", "items": { "type": "string" }, "title": like }),
        Form::Word(words) => {
            let known = words.iter().filter(|word| word.support == Support::Now);
            json!({ "enum": known.map(|word| word.name).collect::<Vec<_>>() })
        }
        Form::Table(keys) => table(keys),
        Form::Tables(like, keys) => json!({ "type": "array", "items": table(keys), "title": like }),
        Form::Map(like, values) => {
            json!({ "type": "object", "additionalProperties": form(values), "title": like })
        }
        Form::Either(forms) => json!({ "anyOf": forms.iter().map(form).collect::<Vec<_>>() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_knows_what_this_version_acts_on_and_nothing_else() {
        let schema = schema();
        let agent = &schema["properties"]["agent"]["additionalProperties"];
        assert_eq!(agent["properties"]["workers"]["maximum"], 1024);
        assert_eq!(agent["properties"]["balance"]["enum"], json!(["spread", "shared"]));
        assert_eq!(
            agent["properties"]["grace"]["properties"]["on_deadline"]["enum"],
            json!(["checkpoint", "extend", "kill"])
        );
        assert_eq!(agent["properties"]["grace"]["additionalProperties"], false);
        assert_eq!(agent["properties"]["upgrade"]["properties"]["steps"]["items"]["maximum"], 100);
        assert!(agent["properties"].get("session").is_none());
        assert!(agent["properties"].get("kind").is_none());
        let skill = &schema["properties"]["skill"]["additionalProperties"];
        assert_eq!(skill["properties"]["kind"]["enum"], json!(["service", "worker"]));
    }
}
