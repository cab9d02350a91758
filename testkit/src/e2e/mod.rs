//! What end-to-end tests share: the real daemon in a home of its own, and clients that count what was lost.
//!
//! ```no_run
//! use agentd_testkit::e2e::{Daemon, Load, Mix, free_port};
//!
//! let mut daemon = Daemon::start("target/debug/agentd");
//! let port = free_port();
//! daemon.config("web.toml", &format!("[agent.web]\ncommand = [\"./web\"]\nlisten = \"127.0.0.1:{port}\"\n"));
//! daemon.ctl_ok(&["start", "./web.toml"]);
//! let report = Load::run(port, Mix::default(), || {
//!     daemon.ctl_ok(&["reload", "web"]);
//! });
//! report.assert_none_lost();
//! ```
//!
//! Owns: [`Home`], [`Daemon`], [`Watch`], [`Load`], ports and processes of a test. Everything has a deadline; what goes
//! wrong is a panic that says what was awaited and what was there instead. A [`Daemon`] that is dropped ends its
//! workers, and fails the test when a process of its instance is left.

mod answer;
mod command;
mod daemon;
mod home;
mod kernel;
mod load;
mod machine;
mod outside;
mod port;
mod process;
mod status;
mod worker;

pub use answer::answer;
pub use command::Output;
pub use daemon::Daemon;
pub use home::Home;
pub use kernel::Kernel;
pub use load::{Class, Load, Loss, Mix, Outcome, Report, Target};
pub use machine::{Debian, Machine};
pub use outside::Outside;
pub use port::free_port;
pub use process::{ProcessEnd, processes_with};
pub use status::Watch;
pub use worker::Speaker;
