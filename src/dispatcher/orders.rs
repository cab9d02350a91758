//! In which order the kernel knows the sockets of an address, where it is not that of their lanes.
//!
//! The program that shares connections out names sockets by their index in the kernel's group, and nobody can ask the kernel
//! for it. It is the order of lanes until a socket leaves the group: one that was lost with supervisor and keeper and is made
//! anew, one that a worker shut down. From then on it is written down, for the supervisor that takes the sockets over next.
//!
//! What can go wrong: a supervisor that dies between such a change and its writing down leaves the order before. The next
//! one gives lanes each other's shares then, until the app has more lanes or its sockets are made anew.

use std::collections::BTreeMap;

use agentd_core::id::AppName;

use super::Dispatcher;
use crate::causes::in_full;
use crate::sockets::ListenAddr;
use crate::store::{Change, Durability};

/// Under which name the store keeps them.
const KEY: &str = "orders";

/// By app and address.
#[derive(Debug, Default)]
pub(super) struct Orders(BTreeMap<String, BTreeMap<String, Vec<u32>>>);

impl Orders {
    /// The order at an address as it is known; empty where it is that of lanes.
    pub(super) fn of(&self, app: &AppName, addr: &ListenAddr) -> Vec<u32> {
        self.0.get(app.as_str()).and_then(|app| app.get(&addr.to_string())).cloned().unwrap_or_default()
    }

    /// As they are stored.
    pub(super) fn as_kept(&self) -> Change {
        let value = serde_json::to_string(&self.0).expect("numbers and texts become JSON");
        Change::Meta { key: KEY, value }
    }
}

impl Dispatcher {
    /// What an earlier supervisor knew.
    pub(super) fn recall_orders(&mut self) {
        let kept = match self.store.meta(KEY) {
            Ok(text) => text.map_or_else(|| Ok(BTreeMap::new()), |text| serde_json::from_str(&text)),
            Err(error) => return tracing::error!(error = in_full(&error), "the order of sockets could not be read"),
        };
        match kept {
            Ok(kept) => self.orders = Orders(kept),
            Err(error) => tracing::error!(%error, "the order of sockets cannot be understood"),
        }
    }

    /// Writes the order of an app's sockets down, if it changed.
    pub(super) fn remember_order(&mut self, name: &AppName) {
        let now = self.apps.get(name).map(|app| app.addresses.orders()).unwrap_or_default();
        if self.orders.0.get(name.as_str()).map_or(now.is_empty(), |known| *known == now) {
            return;
        }
        if now.is_empty() {
            self.orders.0.remove(name.as_str());
        } else {
            self.orders.0.insert(name.to_string(), now);
        }
        let kept = self.orders.as_kept();
        self.write_down(&[kept], Durability::Process);
    }
}
