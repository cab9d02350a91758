//! Servers in Node: the program that package.json starts.

use camino::Utf8Path;
use serde_json::Value;

use super::{Finding, Listens, PRELOAD_NAME, app_name, folder_name, port, source};

/// Programs that a package without an entry usually has.
const USUAL: [&str; 6] = ["server.js", "index.js", "app.js", "main.js", "server.mjs", "index.mjs"];

/// What a program that takes a descriptor has in it.
const TAKES: [&str; 4] = ["AGENTD_FD_", "LISTEN_FDS", "{ fd", "{fd"];

/// Whom an address is for: everybody who reaches the machine, or the machine itself.
const OTHERS: &str = "0.0.0.0";
const OWN: &str = "127.0.0.1";

/// The program of the package, or a program with a usual name.
pub(super) fn find(folder: &Utf8Path, files: &[String]) -> Option<Finding> {
    let package: Option<Value> = source(&folder.join("package.json")).and_then(|text| serde_json::from_str(&text).ok());
    let text = |key: &str| package.as_ref()?.get(key)?.as_str().map(str::to_owned);
    let start = package.as_ref().and_then(|package| package["scripts"]["start"].as_str()).map(str::to_owned);
    let (options, program) =
        start.as_deref().and_then(node_words).or_else(|| text("main").map(|program| (Vec::new(), program))).or_else(
            || {
                let usual = USUAL.iter().find(|name| files.iter().any(|file| file == *name))?;
                package.as_ref().map(|_| (Vec::new(), (*usual).to_owned()))
            },
        )?;
    let path = folder.join(&program);
    let code = source(&path)?;
    let mut finding = Finding {
        name: text("name").map_or_else(|| folder_name(folder), |name| app_name(&name)),
        ..Finding::default()
    };
    let express = package.as_ref().is_some_and(|package| package["dependencies"].get("express").is_some());
    let what = if express || code.contains("require('express')") { "an Express app" } else { "a Node program" };
    finding.about.push(format!("{what}: {program}, as package.json has it"));
    finding.command = std::iter::once("node".to_owned()).chain(options).chain([program]).collect();
    describe_here(&mut finding, &code);
    if package.is_some() && !folder.join("node_modules").is_dir() && std::env::var_os("NODE_PATH").is_none() {
        finding.about.push("there is no node_modules here yet: npm ci".to_owned());
    }
    Some(finding)
}

/// The same for a program in the folder of the configuration, of which nothing else is known.
pub(super) fn describe_here(finding: &mut Finding, code: &str) {
    describe(finding, code, None, &format!("./{PRELOAD_NAME}"));
    if finding.preload {
        finding.keys.push(("env = { PORT = \"{port:http}\" }".to_owned(), Some("the port that it asks for")));
    }
}

/// How it listens, by its own words; `before` is what is known of the port, and `preload` where [`super::PRELOAD`] will be,
/// as the program's folder sees it.
pub(super) fn describe(finding: &mut Finding, code: &str, before: Option<u16>, preload: &str) {
    let at = |host| before.map_or(Listens::Given, |port| Listens::GivenAt { host, port });
    if TAKES.iter().any(|word| code.contains(word)) {
        finding.listens = at(OTHERS);
        let asks_arguments = code.contains("process.argv[2]") && !code.contains("AGENTD_FD_");
        if asks_arguments && !finding.command.iter().any(|word| word.contains("{fd:")) {
            finding.command.push("{fd:http}".to_owned());
        }
        return;
    }
    if !code.contains(".listen(") {
        return;
    }
    let port = before.or_else(|| port::bound_by(code));
    let host = if before.is_some() && !port::is_local(code) { OTHERS } else { OWN };
    finding.listens = port.map_or(Listens::Given, |port| Listens::GivenAt { host, port });
    finding.preload = true;
    finding.command.splice(1..1, ["--require".to_owned(), preload.to_owned()]);
    finding.about.extend([
        format!(
            "It binds its port itself. {PRELOAD_NAME}, loaded before it, gives it the socket that the daemon holds, so"
        ),
        "a reload refuses and cuts nothing. It is not needed once the program listens by itself like this:".to_owned(),
        "    server.listen(process.env.AGENTD_FD_HTTP ? { fd: Number(process.env.AGENTD_FD_HTTP) } : PORT)".to_owned(),
    ]);
}

/// The words of a start script that is nothing but `node OPTIONS PROGRAM`.
pub(super) fn node_words(start: &str) -> Option<(Vec<String>, String)> {
    let mut words = start.split_whitespace();
    if words.next() != Some("node") || start.contains(['&', '|', ';', '$', '"', '\'', '>']) {
        return None;
    }
    let mut words: Vec<String> = words.map(str::to_owned).collect();
    let program = words.pop().filter(|word| !word.starts_with('-'))?;
    words.iter().all(|word| word.starts_with('-')).then_some((words, program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_script_counts_only_where_it_is_node_and_a_program() {
        let words = |text| node_words(text).map(|(options, program)| format!("{} {program}", options.join(" ")));
        assert_eq!(words("node server.js").as_deref(), Some(" server.js"));
        assert_eq!(
            words("node --enable-source-maps dist/main.js").as_deref(),
            Some("--enable-source-maps dist/main.js")
        );
        for none in ["next start", "node a.js && node b.js", "node --inspect", "PORT=1 node a.js"] {
            assert_eq!(words(none), None, "{none}");
        }
    }
}
