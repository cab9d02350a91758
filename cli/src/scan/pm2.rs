//! A PM2 file: its apps with the keys that mean something here.
//!
//! JSON is read as it is. JavaScript is evaluated by `node`, as PM2 does it; YAML by `python3` with PyYAML or by `node`
//! with `js-yaml`, whichever is there. What PM2 has and this version has not is told in a comment.

use std::process::{Command, Stdio};

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use super::{Finding, ScanError, app_name, list, node, quoted, source};

/// Names of such files, in the order in which they are looked for.
const NAMES: [&str; 10] = [
    "ecosystem.config.js",
    "ecosystem.config.cjs",
    "ecosystem.config.mjs",
    "ecosystem.config.json",
    "ecosystem.config.yaml",
    "ecosystem.config.yml",
    "ecosystem.json",
    "ecosystem.yaml",
    "pm2.json",
    "process.json",
];

/// The apps of the first such file; none when there is no such file.
pub(super) fn find(folder: &Utf8Path, files: &[String]) -> Result<Option<Vec<Finding>>, ScanError> {
    let Some(name) = NAMES.iter().find(|name| files.iter().any(|file| file == *name)) else { return Ok(None) };
    let path = folder.join(name);
    let failed = |why: String| ScanError::Pm2 { path: path.clone(), why };
    let value = read(folder, &path).map_err(failed)?;
    let apps = value.get("apps").unwrap_or(&value);
    let apps = apps.as_array().cloned().unwrap_or_else(|| vec![apps.clone()]);
    let mut found: Vec<Finding> =
        apps.iter().enumerate().filter_map(|(index, app)| finding(folder, name, app, index)).collect();
    for index in 1..found.len() {
        let taken = found[..index].iter().any(|other| other.name == found[index].name);
        if taken {
            found[index].name = format!("{}-{index}", found[index].name);
        }
    }
    if found.is_empty() { Err(failed("it names no app with a script".to_owned())) } else { Ok(Some(found)) }
}

fn read(folder: &Utf8Path, path: &Utf8Path) -> Result<Value, String> {
    let text = match path.extension() {
        Some("json") => source(path).ok_or("it cannot be read")?,
        Some("yaml" | "yml") => {
            let python = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
            let node = "process.stdout.write(JSON.stringify(require('js-yaml').load(require('fs').readFileSync(process.argv[1], 'utf8'))))";
            evaluate(folder, "python3", &["-c", python, path.as_str()])
                .or_else(|_| evaluate(folder, "node", &["-e", node, path.as_str()]))
                .map_err(|_| {
                    "YAML is read by python3 with PyYAML, or by node with js-yaml, and neither is there".to_owned()
                })?
        }
        Some(_) | None => {
            let script = "import(require('url').pathToFileURL(process.argv[1])).then((m) => process.stdout.write(JSON.stringify(m.default ?? m)))";
            let absolute = path.canonicalize_utf8().map_err(|error| error.to_string())?;
            evaluate(folder, "node", &["-e", script, absolute.as_str()])?
        }
    };
    serde_json::from_str(&text).map_err(|error| format!("what it says is no JSON: {error}"))
}

fn evaluate(folder: &Utf8Path, program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).current_dir(folder).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program} cannot be run: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let why = said.lines().find(|line| line.contains("Error")).unwrap_or("it failed");
        return Err(format!("{program}: {}", why.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn finding(folder: &Utf8Path, file: &str, app: &Value, index: usize) -> Option<Finding> {
    let script = app["script"].as_str()?;
    let name = app["name"].as_str().map_or_else(|| format!("app-{index}"), str::to_owned);
    let mut finding = Finding { name: app_name(&name), private: true, ..Finding::default() };
    finding.about.push(format!("{name}, as {file} has it"));
    let cwd = app["cwd"].as_str().map_or_else(|| folder.to_owned(), |cwd| folder.join(cwd));
    finding.command = command(app, script, &cwd);
    if app["cwd"].is_string() {
        finding.keys.push((format!("cwd = {}", quoted(cwd.as_str())), None));
    }
    let environment: Vec<String> = ["env", "env_production"]
        .iter()
        .filter_map(|key| app[*key].as_object())
        .flatten()
        .filter(|(name, value)| !(name.starts_with("AGENTD_") || value.is_object() || value.is_null()))
        .map(|(name, value)| (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect::<std::collections::BTreeMap<_, _>>()
        .into_iter()
        .map(|(name, value)| format!("{} = {}", quoted(&name), quoted(&value)))
        .collect();
    if !environment.is_empty() {
        finding.keys.push((format!("env = {{ {} }}", environment.join(", ")), None));
    }
    policies(&mut finding, app);
    workers(&mut finding, app, &cwd.join(script));
    Some(finding)
}

fn command(app: &Value, script: &str, cwd: &Utf8Path) -> Vec<String> {
    let words = |key: &str| -> Vec<String> {
        match &app[key] {
            Value::String(text) => text.split_whitespace().map(str::to_owned).collect(),
            Value::Array(items) => {
                items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
        }
    };
    let usual = match Utf8Path::new(script).extension() {
        Some("js" | "cjs" | "mjs") => Some("node"),
        Some("py") => Some("python3"),
        Some("sh") => Some("bash"),
        Some(_) | None => None,
    };
    let interpreter = match app["interpreter"].as_str().or_else(|| app["exec_interpreter"].as_str()) {
        Some("none") => None,
        Some(given) => Some(given.to_owned()),
        None => usual.map(str::to_owned),
    };
    let mut command: Vec<String> = interpreter.into_iter().collect();
    for key in ["node_args", "interpreter_args"] {
        command.extend(words(key));
    }
    // A program without an interpreter is found by its path, unless it is one of PATH.
    let own = command.is_empty() && cwd.join(script).is_file();
    let path: Utf8PathBuf = cwd.join(script).components().collect();
    command.push(if own { path.into_string() } else { script.to_owned() });
    command.extend(words("args"));
    command
}

fn policies(finding: &mut Finding, app: &Value) {
    if app["autorestart"] == false {
        finding.keys.push(("restart = { policy = \"never\" }".to_owned(), None));
    }
    if let Some(ms) = app["kill_timeout"].as_u64() {
        finding.keys.push((format!("stop = {{ timeout = \"{ms}ms\" }}"), None));
    }
    if let Some(schedule) = app["cron_restart"].as_str().filter(|text| *text != "0") {
        finding.keys.push((
            format!("cron_reload = {}", quoted(schedule)),
            Some("a reload, not a restart: it waits for what runs"),
        ));
    }
    if let Some(size) = app["max_memory_restart"].as_str() {
        finding.keys.push((format!("limits = {{ memory = {} }}", quoted(&size.to_uppercase().replace('B', ""))), None));
    }
    let watched: Vec<String> =
        app["watch"].as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect();
    if !watched.is_empty() {
        finding.ideas.push(format!("watch = {}          # for development", list(&watched)));
    } else if app["watch"] == true {
        finding.ideas.push("watch = [\"**\"]          # for development".to_owned());
    }
}

/// PM2's cluster mode shares a port that its own process holds, so the program binds. Here it takes a descriptor.
fn workers(finding: &mut Finding, app: &Value, script: &Utf8Path) {
    let code = source(script).unwrap_or_default();
    let node = finding.command.first().is_some_and(|program| program.ends_with("node"));
    if node {
        node::describe(finding, &code);
    }
    let wanted = match &app["instances"] {
        Value::Number(number) => number.as_u64().filter(|count| *count > 1).map(|count| count.to_string()),
        Value::String(text) if text != "1" => Some(text.clone()),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let Some(wanted) = wanted else { return };
    if node && code.contains(".listen(") && finding.listens == super::Listens::Itself {
        finding
            .about
            .push(format!("PM2 ran {wanted} of it on one port; with `listen` taken from below, set `workers`."));
        return;
    }
    let count = wanted.parse::<u32>().unwrap_or(2);
    finding.keys.push((format!("workers = {count}"), None));
}
