//! Commands that are known to do something with their sockets that their user would not expect.
//!
//! Owns a table of runtimes and what was observed of them. It judges by the words of the command alone, so it only
//! advises: what it says is shown at the start of an app and forbids nothing.

use serde::{Deserialize, Serialize};

use agentd_core::policy::DrainBy;

use super::app::{AppConfig, Balance};

/// Something to know about a command, in one sentence or two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// What happens, and what to do instead.
    pub text: String,
}

/// How a runtime comes by its listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// By an argument, and in no other way; the words to add, `NAME` being the listener.
    Argument(&'static str),
    /// By `LISTEN_FDS`, as gunicorn does it.
    Gunicorn,
    /// Not at all: it binds an address of its own. What to do instead.
    Nothing(&'static str),
    /// It starts the program as a child that does not get the descriptors.
    Loses(&'static str),
    /// It starts the program as a child that gets the descriptors, but has another pid than `LISTEN_PID` says.
    Forks,
}

const RUNTIMES: [(&str, Takes); 22] = [
    ("uvicorn", Takes::Argument("\"--fd\", \"{fd:NAME}\"")),
    ("daphne", Takes::Argument("\"--fd\", \"{fd:NAME}\"")),
    ("hypercorn", Takes::Argument("\"--bind\", \"fd://{fd:NAME}\"")),
    ("gunicorn", Takes::Gunicorn),
    ("bun", Takes::Nothing("run it with node")),
    ("bunx", Takes::Nothing("run it with node")),
    ("granian", Takes::Nothing("serve the app with uvicorn and `--fd {fd:NAME}`")),
    ("flask", Takes::Nothing("serve the app with gunicorn")),
    ("fastapi", Takes::Nothing("serve the app with uvicorn and `--fd {fd:NAME}`")),
    ("streamlit", Takes::Nothing("leave `listen` out and let it bind")),
    ("http.server", Takes::Nothing("leave `listen` out and let it bind")),
    ("deno", Takes::Nothing("with node:http `server.listen({ fd })` works; Deno.serve ignores the descriptor")),
    ("npm", Takes::Loses("name the program itself, such as [\"node\", \"server.js\"]")),
    ("npx", Takes::Loses("name the program itself, such as [\"node_modules/.bin/PROGRAM\"]")),
    ("yarn", Takes::Loses("name the program itself, such as [\"node\", \"server.js\"]")),
    ("pnpm", Takes::Loses("name the program itself, such as [\"node\", \"server.js\"]")),
    ("nodemon", Takes::Loses("name the program itself, such as [\"node\", \"server.js\"]")),
    ("tsx", Takes::Loses("run it with [\"node\", \"--import\", \"tsx\", \"server.ts\"]")),
    ("ts-node-dev", Takes::Loses("run it with [\"node\", \"--import\", \"tsx\", \"server.ts\"]")),
    ("uv", Takes::Forks),
    ("tini", Takes::Forks),
    ("dumb-init", Takes::Forks),
];

/// Wrappers within wrappers that are looked through.
const WRAPPERS_MAX: usize = 4;

const SHELLS: [&str; 5] = ["sh", "bash", "dash", "zsh", "ash"];

/// What the user should know before this app is started; mostly nothing.
#[must_use]
pub fn advise(app: &AppConfig) -> Vec<Advice> {
    let words: Vec<&str> = app.command.iter().map(String::as_str).collect();
    let mut advice = Vec::new();
    let mut rest = words.as_slice();
    for _ in 0..WRAPPERS_MAX {
        let Some((program, args)) = step(rest) else { break };
        if SHELLS.contains(&program) {
            advice.extend(shell(program, args));
            break;
        }
        let known = RUNTIMES.iter().find(|(name, _)| *name == program).map(|(_, takes)| *takes);
        if let Some(takes) = known.filter(|_| !app.listen.is_empty()) {
            advice.extend(about(program, takes, args, app));
        }
        match known {
            Some(Takes::Forks) => rest = wrapped(program, args),
            Some(Takes::Argument(_) | Takes::Gunicorn | Takes::Nothing(_) | Takes::Loses(_)) | None => break,
        }
    }
    advice.extend(unix_drain(app));
    advice.into_iter().map(|text| Advice { text }).collect()
}

/// The program that some words start, by its bare name, and its arguments. `env A=b python -m x` starts `x`.
fn step<'w>(words: &'w [&'w str]) -> Option<(&'w str, &'w [&'w str])> {
    let mut rest = words;
    loop {
        let (first, args) = rest.split_first()?;
        let name = first.rsplit('/').next()?;
        let runs = args.first() == Some(&"run");
        match name {
            "env" => {
                let own = args.iter().take_while(|word| word.contains('=') || word.starts_with('-')).count();
                rest = &args[own..];
            }
            "poetry" | "pipenv" if runs => rest = &args[1..],
            _ if name.starts_with("python") || name.starts_with("pypy") => {
                let flags = args.iter().take_while(|word| word.starts_with('-') && **word != "-m").count();
                return match &args[flags..] {
                    ["-m", module, args @ ..] => Some((module, args)),
                    _ => Some((name, args)),
                };
            }
            _ => return Some((name, args)),
        }
    }
}

/// What a forking wrapper runs.
fn wrapped<'w>(program: &str, args: &'w [&'w str]) -> &'w [&'w str] {
    let args = match (program, args.split_first()) {
        ("uv", Some((&"run", rest))) => rest,
        ("uv", _) => &[],
        (_, Some(_) | None) => args,
    };
    let options = args.iter().take_while(|word| word.starts_with('-')).count();
    &args[options..]
}

fn about(program: &str, takes: Takes, args: &[&str], app: &AppConfig) -> Vec<String> {
    let listener =
        if app.listen.contains_key("http") { "http" } else { app.listen.keys().next().map_or("http", String::as_str) };
    let given = args.iter().any(|word| word.contains("{fd:"));
    let text = match takes {
        Takes::Argument(_) if given => return Vec::new(),
        Takes::Argument(words) => format!(
            "{program} takes its socket only as an argument and otherwise binds an address of its own: add {} \
             to the command",
            words.replace("NAME", listener)
        ),
        Takes::Gunicorn => return gunicorn(args, given, listener, app),
        Takes::Nothing(instead) => format!(
            "{program} cannot take its socket from agentd and binds an address of its own: {}",
            instead.replace("NAME", listener)
        ),
        Takes::Loses(instead) => format!("{program} loses the listening sockets on the way to the program: {instead}"),
        Takes::Forks if app.listen_pid && !given => format!(
            "{program} starts the program as its child, to which LISTEN_PID names another process: set \
             listen_pid = false"
        ),
        Takes::Forks => return Vec::new(),
    };
    vec![text]
}

fn gunicorn(args: &[&str], given: bool, listener: &str, app: &AppConfig) -> Vec<String> {
    let option = |names: &[&str]| {
        let at = args.iter().position(|word| names.contains(word));
        let joined = || args.iter().find_map(|word| word.split_once('=').filter(|(name, _)| names.contains(name)));
        at.and_then(|at| args.get(at + 1).copied()).or_else(|| joined().map(|(_, value)| value))
    };
    let mut advice = Vec::new();
    let class = option(&["-k", "--worker-class"]).unwrap_or("sync");
    let threads = option(&["--threads"]).is_some_and(|threads| threads != "1");
    let elsewhere = option(&["-c", "--config"]).is_some();
    if class == "sync" && !threads && !elsewhere && app.balance == Balance::Spread {
        advice.push(
            "gunicorn's sync workers serve one request at a time: set balance = \"shared\", so that no request waits \
             behind a busy worker while another is free"
                .to_owned(),
        );
    }
    if !app.listen_pid && !given {
        advice.push(format!(
            "gunicorn without LISTEN_PID binds 127.0.0.1:8000: add \"-b\", \"fd://{{fd:{listener}}}\" to the \
             command, or leave listen_pid out"
        ));
    }
    if given && app.listen.values().any(crate::sockets::ListenAddr::is_unix) {
        advice.push(
            "gunicorn removes the path of a Unix socket that it was given with `-b fd://…` when it ends: leave \
             `-b` out, it finds the socket by LISTEN_FDS"
                .to_owned(),
        );
    }
    advice
}

fn shell(program: &str, args: &[&str]) -> Option<String> {
    let dash_c =
        args.iter().position(|word| word.starts_with('-') && !word.starts_with("--") && word.ends_with('c'))?;
    let script = args.get(dash_c + 1)?;
    let execs = script.split(|c: char| c.is_whitespace() || ";&|(){}".contains(c)).any(|word| word == "exec");
    (!execs).then(|| {
        format!(
            "`{program} -c` may run the program as its child, which then gets neither the stop signal nor a \
             LISTEN_PID of its own: write `exec` before the program"
        )
    })
}

/// Of a Unix connection the kernel tells no traffic, so one that is kept alive looks busy for ever.
fn unix_drain(app: &AppConfig) -> Option<String> {
    let unix = app.listen.values().any(|addr| addr.is_unix() && addr.is_stream());
    (unix && app.stop.drain == DrainBy::Connections).then(|| {
        "clients that keep connections to a Unix socket open hold a reload up until `grace` is over: if the program \
         finishes what it has on the stop signal, say `stop = { drain = \"signal\" }`"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(command: &str, listen: &str) -> AppConfig {
        let command = command.split('|').map(str::to_owned).collect();
        let mut app = AppConfig::new("a".parse().expect("valid"), command, "/".into());
        if !listen.is_empty() {
            app.listen.insert("http".to_owned(), listen.parse().expect("valid"));
        }
        app.balance = AppConfig::default_balance(&app.listen);
        app
    }

    fn advice(command: &str) -> String {
        let advice = advise(&app(command, "0.0.0.0:80"));
        advice.into_iter().map(|advice| advice.text).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_runtime_that_would_bind_elsewhere_is_told_of() {
        for (command, begins) in [
            ("uvicorn|app:app", "uvicorn takes its socket only as an argument"),
            ("/srv/venv/bin/python3.12|-u|-m|uvicorn|app:app", "uvicorn takes"),
            ("/usr/bin/env|A=b|uvicorn|app:app", "uvicorn takes"),
            ("poetry|run|hypercorn|app:app", "hypercorn takes"),
            ("bun|run|x.ts", "bun cannot take its socket"),
            ("python|-m|http.server", "http.server cannot"),
            ("deno|run|x.ts", "deno cannot"),
            ("npm|start", "npm loses the listening sockets"),
            ("node_modules/.bin/tsx|x.ts", "tsx loses"),
            ("uv|run|--frozen|uvicorn|app:app", "uv starts the program as its child"),
            ("tini|--|uvicorn|app:app|--fd|{fd:http}", ""),
            ("uvicorn|app:app|--fd|{fd:http}", ""),
            ("node|server.js", ""),
            ("", ""),
        ] {
            let said = advice(command);
            assert!(said.starts_with(begins) && said.is_empty() == begins.is_empty(), "{command}: {said:?}");
        }
        assert!(advice("uv|run|uvicorn|app:app").contains("uvicorn takes its socket"));
        assert_eq!(advise(&app("npm|start", "")), []);
        assert_eq!(advise(&app(&"env|".repeat(100_000), "")), []);
    }

    #[test]
    fn gunicorns_sync_workers_are_better_off_with_one_queue() {
        let sync = "gunicorn's sync workers";
        for command in
            ["gunicorn|app", "gunicorn|-k|sync|app", "gunicorn|--worker-class=sync|app", "gunicorn|--threads|1|app"]
        {
            assert!(advice(command).starts_with(sync), "{command}");
        }
        for command in ["gunicorn|-k|gevent|app", "gunicorn|--threads=4|app", "gunicorn|-c|conf.py|app"] {
            assert_eq!(advice(command), "", "{command}");
        }
        let drained = |command: &str| {
            let mut app = app(command, "unix:/run/a");
            app.stop.drain = DrainBy::Signal;
            app
        };
        assert_eq!(advise(&drained("gunicorn|app")), []);
        assert_eq!(advise(&drained("gunicorn|-b|fd://{fd:http}|app")).len(), 1);
        let without_pid =
            AppConfig { listen_pid: false, balance: Balance::Shared, ..app("gunicorn|app", "0.0.0.0:80") };
        assert!(advise(&without_pid)[0].text.contains("fd://{fd:http}"));
    }

    #[test]
    fn a_unix_socket_whose_connections_are_awaited_draws_advice() {
        let told = advise(&app("node|server.js", "unix:/run/a"));
        assert!(told.len() == 1 && told[0].text.contains("drain = \"signal\""), "{told:?}");
        assert_eq!(advise(&app("node|server.js", "0.0.0.0:80")), []);
    }

    #[test]
    fn a_shell_without_exec_stands_between_the_daemon_and_the_program() {
        for command in ["sh|-c|node x.js", "/bin/bash|-lc|a; b", "env|bash|-e|-c|x"] {
            let said = advise(&app(command, ""));
            assert!(said.len() == 1 && said[0].text.contains("write `exec`"), "{command}");
        }
        for command in ["sh|-c|exec node x.js", "sh|-c|cd /x&&exec node", "bash|run.sh", "sh"] {
            assert_eq!(advise(&app(command, "")), [], "{command}");
        }
    }
}
