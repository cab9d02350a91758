//! `agentctl`, the command line of agentd.
//!
//! Start reading at [`args`] (what may be typed), then one file in [`commands`]. [`home`] finds the daemon,
//! [`client`] and [`status`] talk with it, [`render`] shows what it says, [`exit`] says how it ended.
#![forbid(unsafe_code)]

mod args;
mod client;
mod commands;
mod examine;
mod exit;
mod home;
mod launch;
mod line;
mod moment;
mod render;
mod scan;
mod status;
mod systemctl;
mod unit;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    render::choose_color(cli.global.color);
    let json = cli.global.json;
    let code = commands::run(cli).unwrap_or_else(|failure| {
        failure.tell(json);
        failure.code()
    });
    ExitCode::from(code)
}
