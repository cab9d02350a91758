//! Files of apps, and the daemon's settings.
//!
//! Promised: any text is either configuration or told to be wrong, with a place; and what is taken is the same again once it
//! was stored.

use agentd::config::{AppConfig, load, settings};

use crate::scratch;

pub(crate) fn run(text: &[u8]) {
    scratch::with(|folder| {
        let path = folder.join("apps.toml");
        std::fs::write(&path, text).expect("the folder takes files");
        match load(&path) {
            Ok(apps) => {
                for app in apps {
                    let stored = serde_json::to_string(&app).expect("it can be stored");
                    let read: AppConfig = serde_json::from_str(&stored).expect("what was stored is read");
                    assert_eq!(read, app, "{stored}");
                }
            }
            Err(wrong) => {
                assert!(!wrong.is_empty(), "refused without a reason");
                wrong.iter().for_each(|diagnostic| assert!(!diagnostic.to_string().is_empty()));
            }
        }
        if let Err(wrong) = settings(&path) {
            assert!(!wrong.is_empty(), "refused without a reason");
        }
    });
}
