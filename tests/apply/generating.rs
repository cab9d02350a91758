//! Configurations that `init` writes start as they are written; the generated texts are those of this version.

use std::path::{Path, PathBuf};

use agentd_protocol::status::AppState;
use agentd_testkit::e2e::Daemon;

use crate::site::{AGENTD, answer, assert_code};

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps")
}

/// What `tests/prepare` installed.
fn prepared(below: &str) -> PathBuf {
    let target = Path::new(AGENTD).ancestors().nth(2).expect("target/<profile>/agentd");
    let path = target.join("test-env").join(below);
    assert!(path.exists(), "{} is missing: run tests/prepare", path.display());
    path
}

/// Makes a folder of these files in the daemon's home, writes its configuration, starts it and returns the text.
fn init_and_start(daemon: &Daemon, name: &str, files: &[(&str, &str)], links: &[(&str, PathBuf)]) -> String {
    let folder = daemon.home.path().join(name);
    std::fs::create_dir(&folder).expect("the home takes folders");
    for (name, text) in files {
        std::fs::write(folder.join(name), text).expect("it is ours");
    }
    for (name, target) in links {
        std::os::unix::fs::symlink(target, folder.join(name)).expect("it is ours");
    }
    daemon.ctl_ok(&["init", name]);
    let mut written = std::fs::read_to_string(folder.join("agentd.toml")).expect("it was written");
    // A port that was free when init looked may be another test's by now.
    if let Some(port) = written.split_once("127.0.0.1:").and_then(|(_, rest)| rest.split('"').next()) {
        written = written.replace(&format!(":{port}\""), &format!(":{}\"", agentd_testkit::e2e::free_port()));
        std::fs::write(folder.join("agentd.toml"), &written).expect("it is ours");
    }
    daemon.ctl_ok(&["start", &format!("./{name}/agentd.toml")]);
    let again = daemon.ctl(&["init", name]);
    assert_code(&again, 4);
    assert_eq!(std::fs::read_to_string(folder.join("agentd.toml")).expect("it is there"), written);
    written
}

fn sample(name: &str) -> String {
    std::fs::read_to_string(samples().join(name)).expect("a sample")
}

fn port_of(daemon: &Daemon, app: &str) -> u16 {
    let listen = daemon.app(app).listen;
    listen["http"].rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

#[test]
fn a_folder_with_a_fastapi_app_is_served_by_its_own_uvicorn() {
    let daemon = Daemon::start(AGENTD);
    let text = init_and_start(&daemon, "fast", &[("main.py", &sample("asgi.py"))], &[(".venv", prepared("venv"))]);
    assert!(text.contains("# a FastAPI app: main:app"), "{text}");
    assert!(answer(port_of(&daemon, "fast")).contains("fast.0.1"));
}

#[test]
fn a_package_with_an_express_app_that_takes_a_descriptor_is_given_one() {
    let daemon = Daemon::start(AGENTD);
    let package = r#"{"name":"exp","scripts":{"start":"node server.js"},"dependencies":{"express":"5"}}"#;
    let files = [("server.js", &*sample("express_app.js")), ("package.json", package)];
    let text = init_and_start(&daemon, "exp", &files, &[("node_modules", prepared("node/node_modules"))]);
    assert!(text.contains("# an Express app: server.js"), "{text}");
    assert!(answer(port_of(&daemon, "exp")).contains("exp.0.1"));
}

#[test]
fn a_wsgi_app_is_served_by_gunicorn_with_one_queue() {
    let daemon = Daemon::start(AGENTD);
    let wsgi = sample("wsgi.py") + "\nclass Flask:\n    def __new__(cls):\n        return app\n\nweb = Flask()\n";
    let text = init_and_start(&daemon, "flask", &[("wsgi.py", &wsgi)], &[(".venv", prepared("venv"))]);
    assert!(text.contains("wsgi:web") && text.contains("balance = \"shared\""), "{text}");
    assert!(answer(port_of(&daemon, "flask")).contains("flask.0.1"));
}

#[test]
fn a_pm2_file_becomes_its_apps_and_a_script_an_app() {
    let daemon = Daemon::start(AGENTD);
    let config = "module.exports = { apps: [\n\
        { name: 'my api', script: 'api.js', args: '--x 1', env: { KEY: 'a\"b' }, autorestart: false },\n\
        { script: './w.py', kill_timeout: 3000, cron_restart: '0 4 * * *' } ] };\n";
    let files = [
        ("ecosystem.config.js", config),
        ("api.js", "setInterval(() => {}, 1000);\n"),
        ("w.py", "import time\ntime.sleep(1000)\n"),
    ];
    let text = init_and_start(&daemon, "pm2", &files, &[]);
    for key in ["env = { \"KEY\" = \"a\\\"b\" }", "restart = { policy = \"never\" }", "cron_reload = \"0 4 * * *\""] {
        assert!(text.contains(key), "{key} is missing: {text}");
    }
    init_and_start(&daemon, "script", &[("worker.py", "import time\ntime.sleep(1000)\n")], &[]);
    let states: Vec<(String, AppState)> = daemon.status().apps.into_iter().map(|app| (app.name, app.state)).collect();
    let names = ["my-api", "script", "w"].map(|name| (name.to_owned(), AppState::Running));
    assert_eq!(states, names);
    let nothing = daemon.home.path().join("nothing");
    std::fs::create_dir(&nothing).expect("the home takes folders");
    assert_code(&daemon.ctl(&["init", "nothing"]), 2);
}

/// What PM2 users have: Express in cluster mode on `PORT`, a module that binds a port of its own, uvicorn with its options,
/// a bot.
const ECOSYSTEM: &str = r"module.exports = { apps: [
  { name: 'api', script: './src/api.js', instances: 3, exec_mode: 'cluster', env: { PORT: @API@, TAG: 'from pm2' },
    wait_ready: true, shutdown_with_message: true, error_file: './err.log', env_staging: { TAG: 'no' }, kill_timeout: 5000 },
  { name: 'own', script: 'own.mjs', node_args: '--no-warnings', args: '--x 1' },
  { name: 'fast', script: 'uvicorn', args: 'asgi:app --host 0.0.0.0 --port @FAST@', interpreter: 'none', cwd: './fast' },
  { name: 'bot', script: 'bot.py', interpreter: './fast/venv/bin/python', max_memory_restart: '300M' },
] };
";

const API: &str = "const express = require('express');\nconst app = express();\n\
    app.get('/health', (request, response) => response.send('well'));\n\
    app.get('/', (request, response) => response.send(`${process.env.TAG} ${process.argv.length}`));\n\
    app.listen(process.env.PORT || 3000, () => process.send('ready'));\n\
    process.on('message', (said) => said === 'shutdown' && process.exit(0));\n";

const OWN: &str = "import http from 'node:http';\nconst port = @OWN@;\n\
    http.createServer((request, response) => response.end(process.argv.slice(2).join(' '))).listen({ port, host: '127.0.0.1' });\n\
    http.createServer((request, response) => response.end('metrics')).listen(0);\n";

#[test]
fn a_pm2_file_with_a_cluster_a_module_and_uvicorn_starts_as_written_at_the_same_ports() {
    let daemon = Daemon::start(AGENTD);
    let folder = daemon.home.path().join("pm2");
    for sub in ["src", "fast"] {
        std::fs::create_dir_all(folder.join(sub)).expect("the home takes folders");
    }
    let [api, own, fast] = [(); 3].map(|()| agentd_testkit::e2e::free_port());
    let with_ports = |text: &str| {
        [("@API@", api), ("@OWN@", own), ("@FAST@", fast)]
            .iter()
            .fold(text.to_owned(), |text, (name, port)| text.replace(name, &port.to_string()))
    };
    for (name, text) in [
        ("ecosystem.config.js", with_ports(ECOSYSTEM)),
        ("src/api.js", API.to_owned()),
        ("own.mjs", with_ports(OWN)),
        ("fast/asgi.py", sample("asgi.py")),
        ("bot.py", "import time\ntime.sleep(1000)\n".to_owned()),
    ] {
        std::fs::write(folder.join(name), text).expect("it is ours");
    }
    for (link, target) in [("node_modules", "node/node_modules"), ("fast/venv", "venv")] {
        std::os::unix::fs::symlink(prepared(target), folder.join(link)).expect("it is ours");
    }
    // Where PM2 found uvicorn: on the PATH of whoever started it.
    let path = format!("{}:{}", prepared("venv/bin").display(), std::env::var("PATH").unwrap_or_default());
    let ctl = |arguments: &[&str]| {
        let output = daemon.agentctl(arguments).env("PATH", &path).output().expect("agentctl runs");
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    };
    let said = ctl(&["init", "pm2"]);
    for lost in ["api: not carried over: env_staging", "agentctl logs"] {
        assert!(said.contains(lost), "{lost} is not told: {said}");
    }
    let written = std::fs::read_to_string(folder.join("agentd.toml")).expect("it was written");
    for line in [
        format!("listen.http = \"0.0.0.0:{api}\""),
        format!("listen.http = \"127.0.0.1:{own}\""),
        format!("listen.http = \"0.0.0.0:{fast}\""),
        "ipc = \"node\"".to_owned(),
        "ready = { notify = true }".to_owned(),
        "message = true".to_owned(),
    ] {
        assert!(written.contains(&line), "{line} is missing: {written}");
    }
    ctl(&["start", "./pm2/agentd.toml"]);
    assert_eq!(daemon.app("api").ready, 3);
    for _ in 0..2 {
        assert_eq!(answer(api), "from pm2 2");
        assert_eq!(answer(own), "--x 1");
        assert!(answer(fast).contains("fast."));
        ctl(&["reload", "all"]);
    }
}

#[test]
fn what_is_generated_needs_no_daemon() {
    let mut daemon = Daemon::start(AGENTD);
    let healthy = daemon.ctl(&["doctor", "--json"]);
    assert_code(&healthy, 0);
    daemon.ctl_ok(&["daemon", "stop"]);
    daemon.await_end(crate::site::PATIENCE);
    let schema: serde_json::Value = daemon.ctl_ok(&["schema"]).json();
    assert_eq!(schema["title"], "agentd configuration");
    for shell in ["bash", "zsh", "fish"] {
        assert!(daemon.ctl_ok(&["completions", shell]).stdout.contains("apply"), "{shell}");
    }
    assert!(daemon.ctl_ok(&["man"]).stdout.contains(".TH agentctl"));
    daemon.ctl_ok(&["man", "--out", "./man"]);
    assert!(daemon.home.path().join("man/agentctl-apply.1").is_file());
    let ill = daemon.ctl(&["doctor"]);
    assert_code(&ill, 4);
    assert!(ill.stdout.contains("agentctl daemon start"), "{ill:#?}");
    daemon.start_again();
}
