//! The state database of a daemon before, with bytes of it changed.
//!
//! An input is a list of changes, four bytes each: where, and what. Promised: it is read, or what is readable of it is kept and
//! the damaged file put aside, or the start is refused; and what was mended once is whole.

use std::sync::OnceLock;

use agentd::config::load;
use agentd::store::{self, Change, Durability, Store};
use agentd_core::app::Head;
use agentd_core::id::{Generation, Revision};

use crate::scratch;

pub(crate) fn run(changes: &[u8]) {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    let mut bytes = WHOLE.get_or_init(whole).clone();
    for &[a, b, c, byte] in changes.as_chunks::<4>().0 {
        let at = u32::from_le_bytes([a, b, c, 0]) as usize % bytes.len();
        bytes[at] = byte;
    }
    scratch::with(|folder| {
        let folder = folder.join("state");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).expect("a folder");
        let path = folder.join("agentd.db");
        std::fs::write(&path, bytes).expect("the folder takes files");
        let mended = match store::open(&path) {
            Ok(opened) => opened.damage.is_some(),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return;
            }
        };
        let again = store::open(&path).expect("what was opened once is opened again");
        assert!(!mended || again.damage.is_none(), "mended, and still damaged: {:?}", again.damage);
    });
}

/// A database with rows of what a daemon reads at its start.
fn whole() -> Vec<u8> {
    scratch::with(|folder| {
        let file = folder.join("apps.toml");
        std::fs::write(&file, "[agent.web]\ncommand = [\"/bin/sleep\", \"9\"]\nworkers = 2\n").expect("it is written");
        let app = load(&file).expect("it is valid").remove(0);
        let path = folder.join("whole.db");
        let mut store = Store::open(&path).expect("a new database");
        let json = serde_json::to_string(&app).expect("it can be stored");
        let head = Head::of_running(app.name.clone(), Revision(1), app.policy(), Generation(3), 2);
        let changes = [
            Change::Revision { app: app.name.clone(), revision: Revision(1), json },
            Change::App(Box::new(head)),
            Change::Meta { key: "instance", value: "0123456789ab".to_owned() },
        ];
        store.commit(&changes, Durability::Power).expect("it is stored");
        drop(store);
        std::fs::read(&path).expect("it is there")
    })
}
