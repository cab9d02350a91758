//! `start`: configurations, scripts and known apps, and the daemon itself when this user has none.
//!
//! What a target is: a path when it holds a `/` or ends in `.toml`; else a known app of that name; else a folder of
//! configuration; else a script or command. The name goes before the folder, because an app is often started from
//! beside the folder that it is named after.

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::num::NonZeroU32;

use agentd_protocol::control::{ALL, Request, StartParams, StartTarget};
use camino::{Utf8Path, Utf8PathBuf};
use thiserror::Error;

use super::{Context, wait};
use crate::args::StartArgs;
use crate::exit::Failure;
use crate::{launch, render, status};

/// Variables that an app started by hand takes over from the shell: where programs and libraries are, who the user
/// is, which language and time zone. Secrets are not among them: they are named with `--env`, or configured.
#[rustfmt::skip]
const INHERITED: &[&str] = &[
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR",
    "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "PYTHONPATH", "PYTHONHOME", "PYENV_ROOT", "PYENV_VERSION",
    "UV_PYTHON", "NODE_PATH", "NODE_ENV", "NODE_OPTIONS", "NVM_DIR", "NVM_BIN", "BUN_INSTALL", "DENO_DIR",
    "GEM_HOME", "GEM_PATH", "JAVA_HOME", "GOPATH", "CARGO_HOME", "RUSTUP_HOME", "LD_LIBRARY_PATH",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
    "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME",
];

/// Prefix of the further language variables.
const INHERITED_PREFIX: &str = "LC_";

/// Why targets make no sense.
#[derive(Debug, Error)]
pub(crate) enum TargetError {
    /// A path that leads nowhere.
    #[error("no file or folder {path}")]
    NoSuchFile {
        /// The path, absolute.
        path: Utf8PathBuf,
    },
    /// A flag that describes a new app, beside a target that is none.
    #[error("{flag} describes a new app, and {target:?} is {what}")]
    NotAScript {
        /// The flag.
        flag: &'static str,
        /// The target.
        target: String,
        /// What the target is.
        what: &'static str,
    },
    /// A flag that can belong to one new app only.
    #[error("{flag} belongs to one script, and there are {count}")]
    SeveralScripts {
        /// The flag.
        flag: &'static str,
        /// How many there are.
        count: usize,
    },
    /// `--env NAME` of a variable that is not set.
    #[error("the variable {name} is not set")]
    Unset {
        /// Its name.
        name: String,
    },
    /// The working directory is gone or no UTF-8.
    #[error("finding the working directory: {0}")]
    Directory(io::Error),
}

impl TargetError {
    /// What to do about it.
    pub(crate) fn help(&self) -> Option<String> {
        let help = match self {
            Self::NoSuchFile { .. } => "give a configuration (*.toml or a folder), a script, or an app's name",
            Self::NotAScript { .. } => "change a known app in its configuration, or its number with: agentctl scale",
            Self::SeveralScripts { .. } => "start them one by one",
            Self::Unset { .. } => "set it, or give a value: --env NAME=VALUE",
            Self::Directory(_) => return None,
        };
        Some(help.to_owned())
    }
}

/// What a target turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// A configuration, absolute.
    File(Utf8PathBuf),
    /// An app's name.
    Known(String),
    /// A program's absolute path, or a command to be found in `PATH`.
    Script(String),
}

/// Starts everything that is named.
///
/// # Errors
/// [`Failure::Target`], [`Failure::Launch`], or as [`wait::change`].
pub(crate) fn run(context: &Context, args: StartArgs) -> Result<u8, Failure> {
    let cwd = working_directory()?;
    let env = environment(&args.env)?;
    if launch::ensure(&context.home)? {
        let (log, gone) = (context.home.daemon_log(), "agentctl daemon stop");
        render::note(&format!("no daemon was running: started one (its log: {log}; it ends with: {gone})"));
    }
    let known: Vec<String> = status::document(&context.home)?.0.apps.into_iter().map(|app| app.name).collect();
    let classified: Result<Vec<Target>, TargetError> =
        args.targets.iter().map(|target| classify(target, &known, &cwd)).collect();
    let targets = classified?;
    check_flags(&args, &targets)?;
    let wait_args = args.wait;
    let requests = into_wire(args, targets).into_iter().map(|target| {
        let (cwd, env) = (cwd.to_string(), env.clone());
        Request::Start(StartParams { target, cwd, env, wait: !wait_args.no_wait })
    });
    wait::change(context, requests.collect(), wait_args)
}

pub(super) fn working_directory() -> Result<Utf8PathBuf, TargetError> {
    let cwd = env::current_dir().map_err(TargetError::Directory)?;
    Utf8PathBuf::try_from(cwd).map_err(|error| TargetError::Directory(error.into_io_error()))
}

/// The environment to hand over: what is inherited, and what `--env` names.
pub(super) fn environment(named: &[String]) -> Result<BTreeMap<String, String>, TargetError> {
    let inherited = |name: &str| INHERITED.contains(&name) || name.starts_with(INHERITED_PREFIX);
    let mut environment: BTreeMap<String, String> = env::vars_os()
        // Values that are no UTF-8 cannot be sent, and none of the inherited ones is worth an error.
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| inherited(name))
        .collect();
    for entry in named {
        let (name, value) = match entry.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => (entry.as_str(), env::var(entry).map_err(|_| TargetError::Unset { name: entry.clone() })?),
        };
        environment.insert(name.to_owned(), value);
    }
    Ok(environment)
}

fn classify(target: &str, known: &[String], cwd: &Utf8Path) -> Result<Target, TargetError> {
    let path = cwd.join(target);
    let is_toml = path.extension() == Some("toml");
    let must_be_path = is_toml || target.contains('/');
    if !must_be_path && (target == ALL || known.iter().any(|name| name == target)) {
        return Ok(Target::Known(target.to_owned()));
    }
    if path.is_dir() || (is_toml && path.is_file()) {
        return Ok(Target::File(path));
    }
    if path.is_file() {
        return Ok(Target::Script(path.into_string()));
    }
    if must_be_path {
        return Err(TargetError::NoSuchFile { path });
    }
    Ok(Target::Script(target.to_owned()))
}

/// Refuses flags that would be without effect or ambiguous.
fn check_flags(args: &StartArgs, targets: &[Target]) -> Result<(), TargetError> {
    let flags = [
        ("--name", args.name.is_some()),
        ("-i", args.workers.is_some()),
        ("--listen", !args.listen.is_empty()),
        ("--", !args.args.is_empty()),
    ];
    let Some((flag, _)) = flags.into_iter().find(|(_, given)| *given) else { return Ok(()) };
    for (target, given) in targets.iter().zip(&args.targets) {
        let what = match target {
            Target::File(_) => "a configuration",
            Target::Known(_) => "a known app",
            Target::Script(_) => continue,
        };
        return Err(TargetError::NotAScript { flag, target: given.clone(), what });
    }
    if targets.len() > 1 {
        return Err(TargetError::SeveralScripts { flag, count: targets.len() });
    }
    Ok(())
}

/// The targets as they are sent: one for each file and script, one for all names together.
fn into_wire(args: StartArgs, targets: Vec<Target>) -> Vec<StartTarget> {
    let mut names = Vec::new();
    let mut wire = Vec::new();
    for target in targets {
        match target {
            Target::File(path) => wire.push(StartTarget::File { path: path.into_string() }),
            Target::Known(name) => names.push(name),
            Target::Script(script) => wire.push(StartTarget::Script {
                script,
                name: args.name.clone(),
                workers: args.workers.map(NonZeroU32::get),
                listen: args.listen.clone(),
                args: args.args.clone(),
            }),
        }
    }
    if !names.is_empty() {
        wire.push(StartTarget::Names { names });
    }
    wire
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_target_is_a_path_a_known_app_or_a_script() {
        let dir = tempfile::tempdir().unwrap();
        let cwd = Utf8Path::from_path(dir.path()).unwrap();
        fs::create_dir(cwd.join("support")).unwrap();
        fs::write(cwd.join("agentd.toml"), "").unwrap();
        fs::write(cwd.join("app.py"), "").unwrap();
        let known = ["support".to_owned()];
        let is = |target: &str| classify(target, &known, cwd).unwrap();
        assert_eq!(is("support"), Target::Known("support".into()));
        assert_eq!(is("./support"), Target::File(cwd.join("./support")));
        assert_eq!(is("all"), Target::Known("all".into()));
        assert_eq!(is("agentd.toml"), Target::File(cwd.join("agentd.toml")));
        assert_eq!(is("app.py"), Target::Script(cwd.join("app.py").into_string()));
        assert_eq!(is("uvicorn"), Target::Script("uvicorn".into()));
        for missing in ["other.toml", "./nowhere"] {
            assert!(matches!(classify(missing, &known, cwd), Err(TargetError::NoSuchFile { .. })));
        }
    }

    #[test]
    fn a_variable_is_handed_over_by_name_or_with_a_value_and_must_exist() {
        let given = environment(&["MODEL=a=b".to_owned()]).unwrap();
        assert_eq!(given["MODEL"], "a=b");
        assert!(given.contains_key("PATH"));
        let unset = environment(&["AGENTD_TEST_SURELY_UNSET".to_owned()]);
        assert!(matches!(unset, Err(TargetError::Unset { .. })));
    }
}
