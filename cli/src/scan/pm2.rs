//! A PM2 file, found and read; what its keys mean here is [`ecosystem`]'s.
//!
//! JSON is read as it is, and by `node` where it has comments or commas that JSON has not. JavaScript is evaluated by
//! `node`, as PM2 does it; YAML by `python3` with PyYAML or by `node` with `js-yaml`, whichever is there.

use std::process::{Command, Stdio};

use camino::Utf8Path;
use serde_json::Value;

use super::{Finding, ScanError, ecosystem, source};

/// Names of such files, in the order in which they are looked for.
const NAMES: [&str; 12] = [
    "ecosystem.config.js",
    "ecosystem.config.cjs",
    "ecosystem.config.mjs",
    "ecosystem.config.json",
    "ecosystem.config.yaml",
    "ecosystem.config.yml",
    "ecosystem.json",
    "ecosystem.yaml",
    "pm2.config.js",
    "pm2.config.cjs",
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
        apps.iter().enumerate().filter_map(|(index, app)| ecosystem::finding(folder, name, app, index)).collect();
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
        Some("json") => {
            let text = source(path).ok_or("it cannot be read")?;
            if serde_json::from_str::<Value>(&text).is_ok() {
                text
            } else {
                let script = "process.stdout.write(JSON.stringify(eval('(' + require('fs').readFileSync(process.argv[1], 'utf8') + ')')))";
                evaluate(folder, "node", &["-e", script, path.as_str()])?
            }
        }
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
