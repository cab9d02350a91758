//! agentd under a real systemd: Debian 12's 252 and Debian 13's 257, each test on a machine of its own.
//!
//! Where there can be no such machine (not root, no systemd-nspawn, nothing made by tests/prepare) each test prints
//! why and passes.

#[path = "../docs/blocks.rs"]
mod blocks;
mod boot;
mod delegated;
mod guide;
mod install;
mod journal;
#[path = "../docs/guide.rs"]
mod page;
mod reload;
mod restart;
mod service;
mod stop;
mod user;

/// Each test once with either systemd.
macro_rules! with_either_systemd {
    ($($name:ident;)*) => {
        mod systemd_252 {
            $(#[test]
            fn $name() {
                if let Some(service) = crate::service::Service::fresh(agentd_testkit::e2e::Debian::Twelve) {
                    super::$name(service);
                }
            })*
        }
        mod systemd_257 {
            $(#[test]
            fn $name() {
                if let Some(service) = crate::service::Service::fresh(agentd_testkit::e2e::Debian::Thirteen) {
                    super::$name(service);
                }
            })*
        }
    };
}
use with_either_systemd;
