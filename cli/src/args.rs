//! What may be typed: every command, alias and flag of `agentctl`, parsed once into plain values.
//!
//! Owns the grammar and nothing else: no file is opened, no daemon asked. What a target of `start` is (a file, a
//! known app, a script) is decided by [`crate::commands::start`], which can look.

mod deferred;
mod tasks;

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use agentd_protocol::Timestamp;
use camino::Utf8PathBuf;
pub(crate) use deferred::Deferred;
pub(crate) use tasks::{EffectsArgs, GraceArgs, InState, Judgement, PruneArgs, SessionsArgs, TasksArgs, TasksCommand};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

/// Supervise AI agents and replace them under load without losing a request.
#[derive(Debug, Parser)]
#[command(name = "agentctl", version, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 no such app, 4 refused, \
                        5 rolled back, 6 no daemon, 7 timed out, 8 not allowed, 130 detached by Ctrl-C.")]
// Each command gets them when it is called; here they stand before it.
#[command(mut_args(|flag| flag.global(false)))]
pub(crate) struct Cli {
    /// Flags that every command takes.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Folder that holds everything of one instance: state, sockets and logs [env: AGENTD_HOME]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) home: Option<Utf8PathBuf>,
    /// Print JSON on stdout, and nothing else there
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to colour the output
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
}

/// When to colour the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// One command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start apps from a configuration, a script or by name; starts the daemon when none runs
    Start(Deferred<StartArgs>),
    /// Drain apps and stop them; they stay known and keep their addresses
    Stop(Deferred<ChangeArgs>),
    /// Stop every worker of apps and start it again with today's configuration
    Restart(Deferred<ChangeArgs>),
    /// Drain apps, stop them and forget them
    #[command(visible_alias = "del")]
    Delete(Deferred<ChangeArgs>),
    /// Run another number of workers
    Scale(Deferred<ScaleArgs>),
    /// Send a signal to every worker of an app
    Signal(Deferred<SignalArgs>),
    /// Make the apps as a configuration says: shows what differs, then does the least that it takes
    Apply(Deferred<ApplyArgs>),
    /// Replace the workers of apps one by one, without refusing a connection or cutting a task
    #[command(visible_alias = "gracefulReload")]
    Reload(Deferred<ReloadArgs>),
    /// Let the workers of apps renew what they know, one after the other, without a restart
    Refresh(Deferred<ChangeArgs>),
    /// Put a new release in an app's place: rolling, blue-green, as a canary, or after its end
    Upgrade(Deferred<UpgradeArgs>),
    /// Put a release that served before in its place again
    Rollback(Deferred<RollbackArgs>),
    /// List the releases of an app: who runs them, and what became of them
    Releases(Deferred<ReleasesArgs>),
    /// Let the deployment of an app take its next step now
    Promote(Deferred<SteerArgs>),
    /// Let it stand where it is; a failure still takes it back
    Pause(Deferred<SteerArgs>),
    /// Let it go on
    Resume(Deferred<SteerArgs>),
    /// Take it back: what served before serves again
    Abort(Deferred<SteerArgs>),
    /// List what was deployed
    Deployments(Deferred<DeploymentsArgs>),
    /// Show one deployment: its steps, its gates, what became of tasks; as a page with --html
    Deployment(Deferred<DeploymentArgs>),
    /// List the apps
    #[command(visible_aliases = ["list", "l", "ps"], defer(deferred::with_global))]
    Ls,
    /// Show the workers of apps
    Status(Deferred<StatusArgs>),
    /// Show everything about one app
    #[command(visible_aliases = ["show", "info"])]
    Describe(Deferred<DescribeArgs>),
    /// Show what apps print
    #[command(visible_alias = "log")]
    Logs(Deferred<LogsArgs>),
    /// Show what happened
    Events(Deferred<EventsArgs>),
    /// Write a commented configuration for what is found in a folder
    Init(Deferred<InitArgs>),
    /// Look for what on this machine keeps agentd from keeping its promises
    #[command(defer(deferred::with_global))]
    Doctor,
    /// Print the JSON schema of configuration files, for editors
    #[command(defer(deferred::with_global))]
    Schema,
    /// Print completions for a shell
    Completions(Deferred<CompletionsArgs>),
    /// Print the manual page
    Man(Deferred<ManArgs>),
    /// Show tasks: those in flight, parked and recent; retry, discard, cancel or prune them
    Tasks(Deferred<TasksArgs>),
    /// Show what tasks did to the outside, first what nobody knows the end of
    Effects(Deferred<EffectsArgs>),
    /// Show the sessions of an app
    Sessions(Deferred<SessionsArgs>),
    /// Show what an app's tasks take, how long a drain may take now, and why
    Grace(Deferred<GraceArgs>),
    /// Make agentd a service of systemd, which starts with the machine
    Startup(Deferred<StartupArgs>),
    /// Start, stop or look at the daemon
    Daemon(Deferred<DaemonArgs>),
}

/// `start FILE|SCRIPT|NAME...`.
#[derive(Debug, Args)]
#[command(after_help = "A target with a '/' or ending in .toml is a path; a known app's name is that app; a folder \
                        is read as configuration; anything else is a script or a command.")]
pub(crate) struct StartArgs {
    /// Configuration file or folder, script or command, or the name of a known app
    #[arg(required = true, value_name = "FILE|SCRIPT|NAME")]
    pub(crate) targets: Vec<String>,
    /// Name of the new app (else the script's name)
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// How many workers
    #[arg(short = 'i', long = "workers", visible_alias = "instances", value_name = "N")]
    pub(crate) workers: Option<NonZeroU32>,
    /// Address to listen on, as [NAME=]ADDR: 0.0.0.0:8080, `[::]:8080`, unix:/run/app.sock
    #[arg(long, value_name = "ADDR", action = ArgAction::Append)]
    pub(crate) listen: Vec<String>,
    /// Variable for the new app: NAME=VALUE, or NAME to hand over this shell's
    #[arg(short, long, value_name = "NAME[=VALUE]", action = ArgAction::Append)]
    pub(crate) env: Vec<String>,
    /// Arguments of the script or command
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
    /// How to wait.
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `apply FILE|DIR`.
#[derive(Debug, Args)]
#[command(after_help = "Each app comes to be as the file says, or goes back to what it was. What was applied before \
                        stays applied, whatever becomes of the others; applying again tries the rest again.")]
pub(crate) struct ApplyArgs {
    /// Configuration file, or a folder of them
    #[arg(value_name = "FILE|DIR")]
    pub(crate) path: Utf8PathBuf,
    /// Show what differs, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Delete apps that came from this file or folder and are not in it any more
    #[arg(long)]
    pub(crate) prune: bool,
    /// How to wait.
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// A command that changes apps by name.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// Apps, or `all`
    #[arg(required = true, value_name = "NAME|all")]
    pub(crate) names: Vec<String>,
    /// How to wait.
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `upgrade NAME`.
#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    /// The app
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// What the release is cut from: a folder, an archive (.tar, .tar.gz, .tar.zst), or git:REPOSITORY[#REFERENCE]
    /// (else the configuration's `source`)
    #[arg(long, value_name = "SOURCE")]
    pub(crate) from: Option<String>,
    /// What the archive must hash to
    #[arg(long, value_name = "HEX", requires = "from")]
    pub(crate) sha256: Option<String>,
    /// Say what differs, which strategy that asks for, and what would become of what is in flight; change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Deploy it though this very release was taken back before
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) force: bool,
    /// By which road; the configuration's `upgrade.strategy` without it
    #[arg(long, value_name = "STRATEGY")]
    pub(crate) strategy: Option<Strategy>,
    /// How to wait.
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `rollback NAME`.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The app
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// To which release, by its name, its version or the beginning of its hash (else to the last good one)
    #[arg(long, value_name = "RELEASE")]
    pub(crate) to: Option<String>,
    /// How to wait.
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `deployments [NAME]`.
#[derive(Debug, Args)]
pub(crate) struct DeploymentsArgs {
    /// The app; all of them without it
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// `deployment ID`.
#[derive(Debug, Args)]
pub(crate) struct DeploymentArgs {
    /// Its number, as `deployments` lists it
    #[arg(value_name = "ID")]
    pub(crate) id: u64,
    /// Write a page that needs nothing else, with curves and a timeline
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub(crate) html: Option<Utf8PathBuf>,
}

/// `releases NAME`.
#[derive(Debug, Args)]
pub(crate) struct ReleasesArgs {
    /// The app
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// By which road one release takes the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Strategy {
    /// Worker by worker
    Rolling,
    /// All of the new beside all of the old, then a switch
    BlueGreen,
    /// A growing part of the new connections, judged at each step
    Canary,
    /// The end of the old, then the beginning of the new
    Recreate,
}

impl From<Strategy> for agentd_protocol::status::Strategy {
    fn from(strategy: Strategy) -> Self {
        match strategy {
            Strategy::Rolling => Self::Rolling,
            Strategy::BlueGreen => Self::BlueGreen,
            Strategy::Canary => Self::Canary,
            Strategy::Recreate => Self::Recreate,
        }
    }
}

/// `promote NAME`, `pause NAME`, `resume NAME`, `abort NAME`.
#[derive(Debug, Args)]
pub(crate) struct SteerArgs {
    /// The app whose deployment runs
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// `reload NAME...`.
#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// Which apps, and how to wait.
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
    /// Only those whose configuration file says something else than what runs
    #[arg(long)]
    pub(crate) changed: bool,
    /// The task that asks for it, for one of several in a worker: it is not waited for
    #[arg(long, value_name = "ID")]
    pub(crate) task: Option<String>,
}

/// `scale NAME N`.
#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// The app
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// How many workers, at least 1; `agentctl stop` is what runs none
    #[arg(value_name = "N")]
    pub(crate) workers: u32,
    /// How to wait.
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// How a command that changes something waits for its end.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct WaitArgs {
    /// Return as soon as the daemon has accepted the request
    #[arg(long, conflicts_with = "timeout")]
    pub(crate) no_wait: bool,
    /// Stop waiting after this long (30s, 5m, 1h30m) and exit with 7; the work goes on
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

/// `signal NAME SIG`.
#[derive(Debug, Args)]
pub(crate) struct SignalArgs {
    /// The app
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The signal: HUP, SIGHUP or 1
    #[arg(value_name = "SIGNAL", value_parser = signal)]
    pub(crate) signal: String,
}

/// `status [NAME...]`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Apps; all when none is named
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Follow: redraw on a terminal, print a line for each event elsewhere
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// `describe NAME`.
#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// The app
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// `logs [NAME...]`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Apps; all when none is named
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Go on with what is printed from now on
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How many of the last lines to show (20; all with --since)
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) lines: Option<u32>,
    /// Only lines printed since: `10m` ago, `2026-11-21 14:00`, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = crate::moment::parse)]
    pub(crate) since: Option<Timestamp>,
    /// Only lines printed before
    #[arg(long, value_name = "TIME", value_parser = crate::moment::parse)]
    pub(crate) until: Option<Timestamp>,
    /// Only lines that a regular expression is found in
    #[arg(long, value_name = "PATTERN")]
    pub(crate) grep: Option<String>,
    /// Only one of the two streams
    #[arg(long, value_name = "STREAM")]
    pub(crate) stream: Option<Stream>,
    /// Show when each line was printed
    #[arg(short, long)]
    pub(crate) timestamps: bool,
}

/// One of a worker's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stream {
    /// Standard output
    Out,
    /// Standard error
    Err,
}

/// `init [DIR]`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The folder to look at, and to write agentd.toml into
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) folder: Utf8PathBuf,
    /// Write over an agentd.toml that is there
    #[arg(long)]
    pub(crate) force: bool,
    /// Print the configuration instead of writing it
    #[arg(long, conflicts_with = "force")]
    pub(crate) print: bool,
}

/// `completions SHELL`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write a page for each command into this folder instead
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<Utf8PathBuf>,
}

/// `events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Go on with what happens from now on
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How many of the last events to show (50; all with --since)
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) lines: Option<usize>,
    /// Begin after the event with this number
    #[arg(long, value_name = "SEQ")]
    pub(crate) since: Option<u64>,
}

/// `daemon`.
#[derive(Debug, Args)]
pub(crate) struct DaemonArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub(crate) command: DaemonCommand,
}

/// `daemon …`.
#[derive(Debug, Subcommand)]
pub(crate) enum DaemonCommand {
    /// Start the daemon in the background
    Start,
    /// Stop every app and the daemon
    Stop(DaemonStopArgs),
    /// Show whether the daemon runs, where, and who ran before it
    Status,
    /// Put another binary in the daemon's place; every worker goes on
    Upgrade(SuccessorArgs),
    /// Become the daemon, in the foreground
    Run(RunArgs),
}

/// `startup`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --user and --system: for root the system's service, for everybody else their own. The \
                        system's service runs as the user agentd unless --as names another; workers run as that user \
                        too. Doing it again changes nothing."
)]
pub(crate) struct StartupArgs {
    /// A service of this user
    #[arg(long, conflicts_with = "system")]
    pub(crate) user: bool,
    /// A service of the system; needs root
    #[arg(long)]
    pub(crate) system: bool,
    /// Who runs the system's service: a user, or root where workers are to have users of their own
    #[arg(long = "as", value_name = "USER", conflicts_with_all = ["user", "remove"])]
    pub(crate) run_as: Option<String>,
    /// Stop the service, every worker drained, and remove it
    #[arg(long)]
    pub(crate) remove: bool,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `daemon stop`.
#[derive(Debug, Args)]
pub(crate) struct DaemonStopArgs {
    /// How to wait.
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    /// For ExecStop=: do nothing where systemd stops this unit only to start it again
    #[arg(long, value_name = "UNIT", hide = true)]
    pub(crate) unless_restarting: Option<String>,
    /// The unit is a user's
    #[arg(long, hide = true, requires = "unless_restarting")]
    pub(crate) user: bool,
}

/// `daemon upgrade`.
#[derive(Debug, Args)]
pub(crate) struct SuccessorArgs {
    /// The new agentd; the file that the daemon was started from when none is given
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: Option<PathBuf>,
}

/// `daemon run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Leave the terminal's session first, and close every inherited descriptor but the standard three
    #[arg(long, hide = true)]
    pub(crate) detach: bool,
    /// Arguments of agentd
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<OsString>,
}

/// Parses `30s`, `5m`, `1h30m`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let expected = "expected a duration such as 30s, 5m or 1h30m";
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| expected.to_owned())?;
    Duration::try_from(parsed).map_err(|_| expected.to_owned())
}

/// Turns `HUP`, `sighup` and `1` into `SIGHUP`.
fn signal(text: &str) -> Result<String, String> {
    use nix::sys::signal::Signal;

    let known = match text.parse::<i32>() {
        Ok(number) => Signal::try_from(number).ok(),
        Err(_) => {
            let upper = text.to_ascii_uppercase();
            let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
            full.parse().ok()
        }
    };
    known.map(|signal| signal.as_str().to_owned()).ok_or_else(|| "expected a signal such as HUP, SIGUSR1 or 10".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("agentctl").chain(line.split_whitespace()))
    }

    #[test]
    fn the_grammar_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_alias_that_fingers_know_names_its_command() {
        for (line, wanted) in [
            ("ls", "Ls"),
            ("list", "Ls"),
            ("l", "Ls"),
            ("ps", "Ls"),
            ("log support", "Logs"),
            ("del support", "Delete"),
            ("show support", "Describe"),
            ("info support", "Describe"),
            ("gracefulReload all", "Reload"),
            ("daemon status", "Daemon"),
        ] {
            let command = format!("{:?}", parse(line).unwrap().command);
            assert!(command.starts_with(wanted), "{line} became {command}");
        }
    }

    #[test]
    fn global_flags_stand_before_and_after_the_command() {
        for line in ["--json --home /srv/a ls", "ls --json --home /srv/a"] {
            let cli = parse(line).unwrap();
            assert!(cli.global.json);
            assert_eq!(cli.global.home.unwrap(), "/srv/a");
        }
        for line in
            ["--color never daemon status", "daemon --color never status", "--color always daemon status --color never"]
        {
            let cli = parse(line).unwrap();
            assert_eq!(cli.global.color, Color::Never, "{line}");
            let Command::Daemon(Deferred(daemon)) = cli.command else { panic!("{line} became {:?}", cli.command) };
            assert!(matches!(daemon.command, DaemonCommand::Status), "{line} became {:?}", daemon.command);
        }
    }

    #[test]
    fn every_command_takes_the_global_flags() {
        fn look(command: &clap::Command) {
            let has = |id| command.get_arguments().any(|argument| argument.get_id() == id);
            for flag in ["home", "json", "color"] {
                assert!(has(flag), "{} has no --{flag}", command.get_display_name().unwrap_or_default());
            }
            command.get_subcommands().for_each(look);
        }
        let mut all = Cli::command();
        all.build();
        look(&all);
    }

    #[test]
    fn start_keeps_what_follows_the_two_dashes_for_the_script() {
        let cli =
            parse("start ./app.py --name web -i 4 --listen 0.0.0.0:8080 --listen unix:/x -- --port 1 -v").unwrap();
        let Command::Start(Deferred(start)) = cli.command else { panic!("start became {:?}", cli.command) };
        assert_eq!(start.targets, ["./app.py"]);
        assert_eq!(start.name.as_deref(), Some("web"));
        assert_eq!(start.workers.map(NonZeroU32::get), Some(4));
        assert_eq!(start.listen, ["0.0.0.0:8080", "unix:/x"]);
        assert_eq!(start.args, ["--port", "1", "-v"]);
    }

    #[test]
    fn durations_are_read_with_their_unit_and_refused_without() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "5", "-5s", "soon"] {
            assert!(duration(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn signals_are_known_by_name_and_number() {
        for text in ["HUP", "sighup", "SIGHUP", "1"] {
            assert_eq!(signal(text).as_deref(), Ok("SIGHUP"));
        }
        for bad in ["", "NOPE", "0", "99"] {
            assert!(signal(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn waiting_and_not_waiting_exclude_each_other() {
        assert!(parse("reload all --no-wait --timeout 5s").is_err());
    }
}
