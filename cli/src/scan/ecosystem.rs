//! One app of a PM2 file: its keys in the words of this configuration, and what of them could not be carried over.
//!
//! The happy path: the command as PM2 would run it, its port taken over by the daemon, its environment and policies.
//! What PM2 has and this version has not, is told as a sentence of [`Finding::lost`], never left out in silence.

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use super::{Finding, Listens, PRELOAD_NAME, app_name, health, list, node, port, quoted, source};

/// Keys that are carried over, or mean nothing beside what agentd does anyhow: where logs are, how they are merged, how a
/// tree of processes is ended.
#[rustfmt::skip]
const HANDLED: &[&str] = &[
    "script", "cmd", "exec", "name", "cwd", "args", "interpreter", "exec_interpreter", "node_args", "interpreter_args",
    "port", "env", "env_production", "instances", "exec_mode", "autorestart", "restart_delay",
    "exp_backoff_restart_delay", "max_memory_restart", "cron_restart", "cron", "kill_timeout", "listen_timeout",
    "wait_ready", "shutdown_with_message", "watch", "ignore_watch", "watch_delay", "watch_options", "user", "uid", "group", "gid",
    "merge_logs", "combine_logs", "log_date_format", "time", "treekill", "vizion", "pmx", "automation", "source_map_support",
    "min_uptime", "max_restarts", "disable_source_map_support", "version",
];

/// Keys of PM2 with what takes their place.
const INSTEAD: &[(&str, &str)] = &[
    ("instance_var", "the number of a worker is in AGENTD_SLOT"),
    ("out_file", LOGS),
    ("output", LOGS),
    ("out", LOGS),
    ("error_file", LOGS),
    ("error", LOGS),
    ("err_file", LOGS),
    ("log_file", LOGS),
    ("log", LOGS),
    ("log_type", "lines are kept as they are printed"),
    ("stop_exit_codes", "restart = { policy = \"on-failure\" } takes code 0 for an end"),
    ("filter_env", "apps are given the variables of the configuration and a few of the shell's, no others"),
    ("pid_file", "process ids are in agentctl status --json"),
    ("namespace", "apps have no groups; commands take several names"),
];

const LOGS: &str = "what it prints is kept and rotated: agentctl logs";

/// The app, if it names a script.
pub(super) fn finding(folder: &Utf8Path, file: &str, app: &Value, index: usize) -> Option<Finding> {
    let script = ["script", "cmd", "exec"].iter().find_map(|key| app[*key].as_str())?;
    let cwd = app["cwd"].as_str().map_or_else(|| folder.to_owned(), |cwd| folder.join(cwd));
    let usual = Utf8Path::new(script).file_stem().map_or_else(|| format!("app-{index}"), str::to_owned);
    let name = app["name"].as_str().map_or(usual, str::to_owned);
    let mut finding = Finding { name: app_name(&name), private: true, ..Finding::default() };
    finding.about.push(format!("{name}, as {file} has it"));
    finding.command = command(app, script, &cwd, &mut finding.lost);
    if app["cwd"].is_string() {
        finding.keys.push((format!("cwd = {}", quoted(cwd.as_str())), None));
    }
    let mut environment = environment(app);
    let code = program_of(&finding.command, &cwd);
    listens(&mut finding, app, folder, &cwd, &code, &mut environment);
    if !environment.is_empty() {
        let pairs: Vec<String> =
            environment.iter().map(|(name, value)| format!("{} = {}", quoted(name), quoted(value))).collect();
        finding.keys.push((format!("env = {{ {} }}", pairs.join(", ")), None));
    }
    workers(&mut finding, app, &code);
    policies(&mut finding, app, &code);
    account(&mut finding, app);
    not_carried_over(&mut finding, app);
    Some(finding)
}

/// Text or number or list, as words.
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text.split_whitespace().map(str::to_owned).collect(),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Milliseconds, as a number or as PM2's text ("3s", "1000").
fn milliseconds(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => number.as_u64().map(|ms| format!("{ms}ms")),
        Value::String(text) if text.chars().all(|c| c.is_ascii_digit()) => Some(format!("{text}ms")),
        Value::String(text) => Some(text.clone()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn command(app: &Value, script: &str, cwd: &Utf8Path, lost: &mut Vec<String>) -> Vec<String> {
    // PM2 runs a script with spaces by a shell's rules; of those, words are what is usual.
    let mut script = words(&Value::from(script));
    let mut rest = if script.len() > 1 { script.split_off(1) } else { Vec::new() };
    let script = script.pop().unwrap_or_default();
    rest.extend(words(&app["args"]));
    if let Some(command) = of_a_package(&script, &rest, cwd) {
        return command;
    }
    if ["npm", "npx", "yarn", "pnpm"].contains(&script.as_str()) {
        lost.push(format!(
            "{script} stands between agentd and the program and loses its socket: name the program itself"
        ));
    }
    let usual = match Utf8Path::new(&script).extension() {
        Some("js" | "cjs" | "mjs") => Some("node"),
        Some("py") => Some("python3"),
        Some("sh") => Some("bash"),
        Some(_) | None => None,
    };
    let interpreter = match app["interpreter"].as_str().or_else(|| app["exec_interpreter"].as_str()) {
        Some("none") => None,
        Some("python") => Some("python3".to_owned()),
        Some(given) => Some(given.to_owned()),
        None => usual.map(str::to_owned),
    };
    let interpreter = interpreter.map(|program| {
        let here = program.contains('/') && !program.starts_with('/');
        if here { joined(cwd, &program).into_string() } else { program }
    });
    let mut command: Vec<String> = interpreter.into_iter().collect();
    for key in ["node_args", "interpreter_args"] {
        command.extend(words(&app[key]));
    }
    // A program without an interpreter is found by its path, unless it is one of PATH.
    let own = command.is_empty() && cwd.join(&script).is_file();
    command.push(if own { joined(cwd, &script).into_string() } else { script });
    command.extend(rest);
    command
}

fn joined(cwd: &Utf8Path, path: &str) -> Utf8PathBuf {
    cwd.join(path).components().collect()
}

/// `npm start` and `npm run NAME` of a package whose script is nothing but Node and a program: that, without npm.
fn of_a_package(script: &str, arguments: &[String], cwd: &Utf8Path) -> Option<Vec<String>> {
    if !["npm", "yarn", "pnpm"].contains(&script) {
        return None;
    }
    let name = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["run", name] | [name] => (*name).to_owned(),
        _ => return None,
    };
    let package: Value = serde_json::from_str(&source(&cwd.join("package.json"))?).ok()?;
    let (options, program) = node::node_words(package["scripts"][&name].as_str()?)?;
    Some(["node".to_owned()].into_iter().chain(options).chain([program]).collect())
}

/// The text of the script that an interpreter is given; nothing for other programs.
fn program_of(command: &[String], cwd: &Utf8Path) -> String {
    let script = command.iter().skip(1).find(|word| !word.starts_with('-'));
    script.and_then(|script| source(&cwd.join(script))).unwrap_or_default()
}

/// Variables by name; those of `env_production` win, as with `pm2 start --env production`.
fn environment(app: &Value) -> std::collections::BTreeMap<String, String> {
    ["env", "env_production"]
        .iter()
        .filter_map(|key| app[*key].as_object())
        .flatten()
        .filter(|(name, value)| !(name.starts_with("AGENTD_") || value.is_object() || value.is_null()))
        .map(|(name, value)| (name.clone(), plain(value)))
        .collect()
}

/// How it comes by its address: a program that bound its port is given the daemon's socket at the same port.
fn listens(
    finding: &mut Finding,
    app: &Value,
    folder: &Utf8Path,
    cwd: &Utf8Path,
    code: &str,
    environment: &mut std::collections::BTreeMap<String, String>,
) {
    let own = app["port"].as_u64().map(|port| port.to_string());
    let given = own.as_ref().or_else(|| environment.get("PORT")).and_then(|port| port.trim().parse::<u16>().ok());
    if let Some(server) = Server::of(&finding.command) {
        server.take_socket(finding, given);
        return;
    }
    if !finding.command.first().is_some_and(|program| program.ends_with("node")) {
        return;
    }
    let same = folder.components().eq(cwd.components());
    let preload = if same { format!("./{PRELOAD_NAME}") } else { folder.join(PRELOAD_NAME).into_string() };
    let before = match port::is_of_the_environment(code) {
        true => given.or_else(|| port::bound_by(code)),
        false => port::bound_by(code).or(given),
    };
    node::describe(finding, code, before, &preload);
    // What the program asks for is what the preload looks for.
    if finding.preload {
        environment.insert("PORT".to_owned(), "{port:http}".to_owned());
    }
}

/// Servers in Python that take a socket by an option in the place of the one for their address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Uvicorn,
    Gunicorn,
    Hypercorn,
}

impl Server {
    fn of(command: &[String]) -> Option<Self> {
        let called = |word: &String| Utf8Path::new(word).file_name().map(str::to_owned).unwrap_or_default();
        command.iter().take(3).find_map(|word| match called(word).as_str() {
            "uvicorn" => Some(Self::Uvicorn),
            "gunicorn" => Some(Self::Gunicorn),
            "hypercorn" => Some(Self::Hypercorn),
            _ => None,
        })
    }

    /// Replaces the options that name an address by the one that names the socket.
    fn take_socket(self, finding: &mut Finding, given: Option<u16>) {
        let (mut host, mut port) = (None, None);
        let mut kept = Vec::new();
        let mut words = std::mem::take(&mut finding.command).into_iter();
        while let Some(word) = words.next() {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) if name.starts_with('-') => (name.to_owned(), Some(value.to_owned())),
                Some(_) | None => (word.clone(), None),
            };
            let mut value = || value.clone().or_else(|| words.next());
            match (self, name.as_str()) {
                (Self::Uvicorn, "--host") => host = value(),
                (Self::Uvicorn, "--port") => port = value(),
                (Self::Gunicorn | Self::Hypercorn, "-b" | "--bind") => {
                    let bound = value().unwrap_or_default();
                    let (address, number) = bound.rsplit_once(':').unwrap_or((&bound, "8000"));
                    (host, port) = (Some(address.to_owned()), Some(number.to_owned()));
                }
                (Self::Uvicorn | Self::Gunicorn | Self::Hypercorn, _) => kept.push(word),
            }
        }
        let option: [&str; 2] = match self {
            Self::Uvicorn => ["--fd", "{fd:http}"],
            Self::Gunicorn | Self::Hypercorn => ["--bind", "fd://{fd:http}"],
        };
        finding.command = kept.into_iter().chain(option.map(str::to_owned)).collect();
        let port = port.and_then(|port| port.parse().ok()).or(given).unwrap_or(8000);
        let everybody = host.is_some_and(|host| matches!(host.as_str(), "0.0.0.0" | "::" | "[::]" | ""));
        finding.listens = Listens::GivenAt { host: if everybody { "0.0.0.0" } else { "127.0.0.1" }, port };
    }
}

/// How many workers: PM2's cluster shares one port among them, as the daemon's socket does.
fn workers(finding: &mut Finding, app: &Value, code: &str) {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let count = match &app["instances"] {
        Value::Number(number) => number.as_i64(),
        Value::String(text) if text == "max" => Some(0),
        Value::String(text) => text.parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let Some(count) = count else { return };
    let all = i64::try_from(processors).unwrap_or(1);
    let workers = if count > 0 { count } else { (all + count).max(1) };
    if workers == 1 {
        return;
    }
    let binds = ["HTTPServer(", "uvicorn.run(", ".bind(", "app.run(", "run_app(", "run_simple("];
    if finding.listens == Listens::Itself && binds.iter().any(|word| code.contains(word)) {
        finding.lost.push(format!(
            "instances: {workers} of it cannot bind one port; give it the socket (listen, {{fd:http}}), then set workers"
        ));
        finding.keys.push((
            "reload = { max_surge = 0, max_unavailable = 1 }".to_owned(),
            Some("the port is free only when the old one has ended"),
        ));
        return;
    }
    finding.keys.push((format!("workers = {workers}"), None));
}

fn policies(finding: &mut Finding, app: &Value, code: &str) {
    let (says_ready, hears_shutdown) = (app["wait_ready"] == true, app["shutdown_with_message"] == true);
    if says_ready || hears_shutdown {
        finding
            .keys
            .push(("ipc = \"node\"".to_owned(), Some("process.send and process.on('message') work as under PM2")));
    }
    if says_ready || finding.listens != Listens::Itself {
        let timeout = milliseconds(&app["listen_timeout"]).map(|timeout| format!("timeout = {}", quoted(&timeout)));
        let proof = match (says_ready, health(code)) {
            (true, _) => "notify = true".to_owned(),
            (false, Some(path)) => format!("http = {}", quoted(path)),
            (false, None) => "listening = true".to_owned(),
        };
        let inside: Vec<String> = [Some(proof), timeout].into_iter().flatten().collect();
        finding.keys.push((format!("ready = {{ {} }}", inside.join(", ")), None));
    }
    let delay = milliseconds(&app["restart_delay"]).filter(|ms| ms != "0ms");
    let growing = milliseconds(&app["exp_backoff_restart_delay"]).filter(|ms| ms != "0ms");
    let backoff = delay.map(|delay| format!("{delay}..{delay}")).or(growing.map(|from| format!("{from}..15s")));
    let policy = (app["autorestart"] == false).then(|| "policy = \"never\"".to_owned());
    let backoff = backoff.map(|backoff| format!("backoff = {}", quoted(&backoff)));
    let restart: Vec<String> = [policy, backoff].into_iter().flatten().collect();
    if !restart.is_empty() {
        finding.keys.push((format!("restart = {{ {} }}", restart.join(", ")), None));
    }
    let signal = (code.contains("SIGINT") && !code.contains("SIGTERM")).then(|| "signal = \"SIGINT\"".to_owned());
    let timeout = milliseconds(&app["kill_timeout"]).map(|timeout| format!("timeout = {}", quoted(&timeout)));
    let message = hears_shutdown.then(|| "message = true".to_owned());
    let stop: Vec<String> = [signal, message, timeout].into_iter().flatten().collect();
    if !stop.is_empty() {
        finding.keys.push((format!("stop = {{ {} }}", stop.join(", ")), None));
    }
    let schedule = app["cron_restart"].as_str().or_else(|| app["cron"].as_str());
    if let Some(schedule) = schedule.filter(|text| *text != "0") {
        finding.keys.push((
            format!("cron_reload = {}", quoted(schedule)),
            Some("a reload, not a restart: it waits for what runs"),
        ));
    }
    let memory = match &app["max_memory_restart"] {
        Value::String(size) => Some(size.to_uppercase().replace('B', "")),
        Value::Number(bytes) => Some(bytes.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    if let Some(memory) = memory {
        finding.keys.push((format!("limits = {{ memory = {} }}", quoted(&memory)), None));
    }
    let mut watched = words(&app["watch"]);
    if watched.is_empty() && app["watch"] == true {
        watched.push("**".to_owned());
    }
    if !watched.is_empty() {
        watched.extend(words(&app["ignore_watch"]).into_iter().map(|pattern| format!("!{pattern}")));
        finding.ideas.push(format!("watch = {}          # for development", list(&watched)));
    }
}

/// Another user's workers need a daemon that is root.
fn account(finding: &mut Finding, app: &Value) {
    let root = nix::unistd::geteuid().is_root();
    for (theirs, ours) in [("user", "user"), ("uid", "user"), ("group", "group"), ("gid", "group")] {
        let value = &app[theirs];
        if value.is_null() || finding.keys.iter().any(|(key, _)| key.starts_with(&format!("{ours} = "))) {
            continue;
        }
        if root {
            finding.keys.push((format!("{ours} = {}", quoted(&plain(value))), None));
        } else {
            finding.lost.push(format!("{theirs}: only a daemon that is root gives workers a {ours} of their own"));
        }
    }
}

/// Says which keys have no counterpart.
fn not_carried_over(finding: &mut Finding, app: &Value) {
    for (key, value) in app.as_object().into_iter().flatten() {
        if HANDLED.contains(&key.as_str()) || value.is_null() || *value == false {
            continue;
        }
        let instead = INSTEAD.iter().find(|(name, _)| name == key).map(|(_, instead)| (*instead).to_owned());
        let other = || {
            key.strip_prefix("env_").map_or_else(
                || "agentd has no such key".to_owned(),
                |name| format!("variables of \"{name}\": a configuration has one environment"),
            )
        };
        finding.lost.push(format!("{key}: {}", instead.unwrap_or_else(other)));
    }
    for key in ["max_restarts", "min_uptime"] {
        if !app[key].is_null() {
            finding.lost.push(format!("{key}: restart.max is what parks a worker, \"10 in 5m\" without it"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(app: &Value) -> Finding {
        finding(Utf8Path::new("/srv/nowhere"), "ecosystem.config.js", app, 0).expect("it names a script")
    }

    fn key<'f>(finding: &'f Finding, name: &str) -> Option<&'f str> {
        finding.keys.iter().find_map(|(key, _)| key.strip_prefix(name)?.strip_prefix(" = "))
    }

    #[test]
    fn a_server_in_python_takes_a_socket_in_the_place_of_its_address() {
        let gunicorn =
            of(&json!({ "script": "gunicorn", "args": "-w 1 --bind=0.0.0.0:9000 wsgi:app", "interpreter": "none" }));
        assert_eq!(gunicorn.command, ["gunicorn", "-w", "1", "wsgi:app", "--bind", "fd://{fd:http}"]);
        assert_eq!(gunicorn.listens, Listens::GivenAt { host: "0.0.0.0", port: 9000 });
        let module =
            of(&json!({ "script": "-m uvicorn", "args": ["a:b", "--port", "9001"], "interpreter": "python3" }));
        assert_eq!(module.command, ["python3", "-m", "uvicorn", "a:b", "--fd", "{fd:http}"]);
        assert_eq!(module.listens, Listens::GivenAt { host: "127.0.0.1", port: 9001 });
    }

    #[test]
    fn amounts_and_policies_have_the_words_of_this_configuration() {
        let app = of(&json!({
            "script": "bot.py", "instances": 3, "autorestart": false, "restart_delay": 2000, "kill_timeout": "3s",
            "max_memory_restart": "300MB", "cron_restart": "0 4 * * *", "watch": true, "ignore_watch": ["logs"],
        }));
        assert_eq!(app.command, ["python3", "bot.py"]);
        assert_eq!(key(&app, "workers"), Some("3"));
        assert_eq!(key(&app, "restart"), Some("{ policy = \"never\", backoff = \"2000ms..2000ms\" }"));
        assert_eq!(key(&app, "stop"), Some("{ timeout = \"3s\" }"));
        assert_eq!(key(&app, "limits"), Some("{ memory = \"300M\" }"));
        assert_eq!(key(&app, "cron_reload"), Some("\"0 4 * * *\""));
        assert!(app.ideas[0].starts_with("watch = [\"**\", \"!logs\"]"), "{:?}", app.ideas);
        assert_eq!(app.lost, Vec::<String>::new());
    }

    #[test]
    fn what_has_no_counterpart_is_said() {
        let app = of(
            &json!({ "script": "npm", "args": "start", "namespace": "a", "env_test": {}, "what": 1, "max_restarts": 3 }),
        );
        let starts = [
            "npm stands between",
            "namespace: ",
            "env_test: variables of \"test\"",
            "what: agentd has no such key",
            "max_restarts: ",
        ];
        for wanted in starts {
            assert!(app.lost.iter().any(|lost| lost.starts_with(wanted)), "{wanted}: {:?}", app.lost);
        }
        assert_eq!(app.lost.len(), starts.len(), "{:?}", app.lost);
    }
}
