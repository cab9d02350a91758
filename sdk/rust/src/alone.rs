//! What answers where there is no agentd: the same answers, from memory, kept by nobody.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Effects by `task:key`, items by namespace and key.
#[derive(Debug, Default)]
pub(crate) struct Alone {
    effects: BTreeMap<String, Value>,
    items: BTreeMap<(String, String), Value>,
}

impl Alone {
    pub(crate) fn ask(&mut self, body: &Value) -> Value {
        let text = |name: &str| body[name].as_str().unwrap_or_default();
        let key = format!("{}:{}", text("task"), text("key"));
        match text("t") {
            "task.begin" => json!({ "task": body["task"], "fence": 1, "attempt": 1 }),
            "effect.begin" => match self.effects.get(&key) {
                Some(result) => json!({ "state": "done", "result": result }),
                None => json!({ "state": "new", "key": key }),
            },
            "effect.end" => {
                if body["ok"] == true {
                    self.effects.insert(key, body["result"].clone());
                }
                json!({})
            }
            "task.end" | "task.yield" => {
                let task = format!("{}:", text("task"));
                self.effects.retain(|key, _| !key.starts_with(&task));
                json!({})
            }
            "kv.put" => self.put(text("ns"), &body["items"]),
            "kv.get" => match self.items.get(&(text("ns").into(), text("key").into())) {
                Some(value) => with(value, "found", json!(true)),
                None => json!({ "found": false }),
            },
            "kv.scan" | "kv.del" => self.several(body),
            _ => json!({}),
        }
    }

    fn put(&mut self, ns: &str, items: &Value) -> Value {
        let put = items.as_array().into_iter().flatten().map(|item| {
            let at = (ns.to_owned(), item["key"].as_str().unwrap_or_default().to_owned());
            let mut value = json!({});
            for form in ["data", "json"] {
                if let Some(there) = item.get(form) {
                    value[form] = there.clone();
                }
            }
            if item["if_absent"] == true
                && let Some(there) = self.items.get(&at)
            {
                return *there == value;
            }
            self.items.insert(at, value);
            true
        });
        json!({ "put": put.collect::<Vec<_>>() })
    }

    fn several(&mut self, body: &Value) -> Value {
        let (ns, prefix) = (body["ns"].as_str().unwrap_or_default(), body["prefix"].as_str().unwrap_or_default());
        let is_meant = |key: &str| body["key"].as_str().map_or_else(|| key.starts_with(prefix), |one| one == key);
        let mut keys: Vec<_> = self.items.keys().filter(|(n, key)| n == ns && is_meant(key)).cloned().collect();
        if body["t"] == "kv.del" {
            keys.iter().for_each(|key| drop(self.items.remove(key)));
            return json!({ "deleted": keys.len() });
        }
        let down = body["reverse"] == true;
        if let Some(after) = body["after"].as_str() {
            keys.retain(|(_, key)| if down { &**key < after } else { &**key > after });
        }
        if down {
            keys.reverse();
        }
        let limit = body["limit"].as_u64().unwrap_or(100) as usize;
        let more = keys.len() > limit;
        let items = keys.iter().take(limit).map(|at| with(&self.items[at], "key", json!(at.1)));
        json!({ "items": items.collect::<Vec<_>>(), "more": more })
    }
}

fn with(value: &Value, name: &str, field: Value) -> Value {
    let mut all = value.clone();
    all[name] = field;
    all
}
