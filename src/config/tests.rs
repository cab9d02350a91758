//! The configuration as its users meet it: whole files in, apps or rendered diagnostics out.

use std::collections::BTreeMap;
use std::time::Duration;

use agentd_core::policy::{DrainBy, Lanes, RestartWhen};
use camino::{Utf8Path, Utf8PathBuf};
use proptest::prelude::*;

use super::form::Form;
use super::keys::DOCUMENT;
use super::{
    AppConfig, AppKind, Balance, Diagnostic, HttpCheck, LiveCheck, LogSink, ReadyCheck, SkillKind, adhoc, load,
};

/// A folder of its own with these files in it.
pub(super) fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Utf8PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).expect("a temporary folder has a plain path");
    for (name, text) in files {
        std::fs::write(path.join(name), text).expect("the folder takes files");
    }
    (dir, path)
}

fn only(text: &str) -> AppConfig {
    let (_dir, path) = folder(&[("a.toml", text)]);
    let apps = load(&path.join("a.toml"));
    let mut apps = apps.unwrap_or_else(|found| panic!("{}", rendered(&found, &path)));
    assert_eq!(apps.len(), 1);
    apps.remove(0)
}

fn rendered(found: &[Diagnostic], folder: &Utf8Path) -> String {
    let texts: Vec<_> = found.iter().map(ToString::to_string).collect();
    texts.join("\n").replace(&format!("{folder}/"), "").replace(folder.as_str(), ".")
}

/// What is said about an app with these keys, in one line each: `line:from-to message [expected] (help)`.
fn wrong(keys: &str) -> Vec<String> {
    wrong_file(&format!("[agent.a]\ncommand = [\"a\"]\n{keys}"))
}

fn wrong_file(text: &str) -> Vec<String> {
    let (_dir, path) = folder(&[("a.toml", text)]);
    brief(&load(&path.join("a.toml")).expect_err("it is wrong"), &path)
}

fn brief(found: &[Diagnostic], folder: &Utf8Path) -> Vec<String> {
    let one = |d: &Diagnostic| {
        let expected = d.expected.as_ref().map_or_else(String::new, |text| format!(" [{text}]"));
        let help = d.help.as_ref().map_or_else(String::new, |text| format!(" ({text})"));
        let text = format!("{}:{}-{} {}{expected}{help}", d.line, d.column, d.end_column, d.message);
        text.replace(&format!("{folder}/"), "").replace(folder.as_str(), ".")
    };
    found.iter().map(one).collect()
}

const WHOLE: &str = r#"
[agent.support]
command = ["uvicorn", "app:app", "--fd", "{fd:http}"]
workers = 2
listen.http = "0.0.0.0:8080"
listen.admin = "127.0.0.1:9090"
listen_pid = false
routing = "kernel"
balance = "shared"
env = { MODEL = "llama-3.3", N = 1, F = 0.5, ON = true, URL = "http://{host:admin}:{port:admin}/" }
ready = { http = "/health", on = "admin", timeout = "30s", status = 204 }
live = { tcp = true, every = "1s", failures = 2, timeout = "500ms" }
restart = { policy = "on-failure", backoff = "1s..1m", max = "3 in 1m" }
stop = { signal = "INT", drain = "signal", timeout = "10s" }
grace = { target = 0.999, default = "2m", min = "5s", max = "1h", on_deadline = "kill" }
limits = { memory = "2G", pids = 512, cpu = "150%", files = 65_536 }
reload = { strategy = "rolling", max_surge = 0, max_unavailable = 1, settle = "1s" }
log = { sink = "file", max_size = "1M", keep = 0, format = "text" }
umask = "0027"
"#;

#[test]
fn every_key_arrives_where_it_belongs() {
    let app = only(WHOLE);
    assert_eq!((app.name.as_str(), app.kind, app.workers, app.listen_pid), ("support", AppKind::Agent, 2, false));
    assert_eq!((app.listen["http"].port(), app.listen["admin"].port()), (Some(8080), Some(9090)));
    assert_eq!((app.balance, app.umask), (Balance::Shared, Some(0o27)));
    let http = HttpCheck { path: "/health".to_owned(), on: "admin".to_owned(), status_min: 204, status_max: 204 };
    assert_eq!((app.ready.check.clone(), app.ready.timeout), (ReadyCheck::Http(http), Duration::from_secs(30)));
    let live = app.live.clone().expect("it is written");
    assert_eq!(live.check, LiveCheck::Tcp { on: "http".to_owned() });
    assert_eq!((live.every, live.timeout, live.failures), (Duration::from_secs(1), Duration::from_millis(500), 2));
    assert_eq!((app.stop.signal.to_string(), app.stop.timeout), ("SIGINT".to_owned(), Some(Duration::from_secs(10))));
    assert_eq!((app.limits.memory, app.limits.pids), (Some(2 << 30), Some(512)));
    assert_eq!((app.limits.cpu_percent, app.limits.files), (Some(150), Some(65_536)));
    assert_eq!((app.log.sink, app.log.max_size, app.log.keep), (LogSink::File, 1 << 20, 0));
    let policy = app.policy();
    assert_eq!((policy.workers, policy.lanes, policy.stop.drain), (2, Lanes::PerGeneration, DrainBy::Signal));
    assert_eq!((policy.restart.when, policy.restart.max), (RestartWhen::OnFailure, 3));
    assert_eq!((policy.restart.backoff_min, policy.restart.period), (Duration::from_secs(1), Duration::from_secs(60)));
    assert_eq!((policy.grace.target, policy.grace.max), (0.999, Duration::from_secs(3600)));
    assert_eq!((policy.reload.max_surge, policy.reload.max_unavailable), (0, 1));
    assert_eq!(policy.live.map(|live| live.failures), Some(2));
}

#[test]
fn what_is_left_out_has_its_default() {
    let (_dir, path) = folder(&[("a.toml", "[agent.a]\ncommand = [\"a\"]\n[skill.b]\ncommand = [\"b\"]\nlisten = 80")]);
    let apps = load(&path).expect("it is sound");
    let expected = AppConfig::new("a".parse().expect("valid"), vec!["a".to_owned()], path.clone());
    assert_eq!(apps[0], expected);
    assert_eq!(apps[0].policy(), agentd_core::policy::AppPolicy::default());
    assert_eq!((apps[1].kind, apps[1].balance), (AppKind::Skill(SkillKind::Service), Balance::Spread));
    assert_eq!((apps[1].ready.check.clone(), apps[1].lanes()), (ReadyCheck::Listening, Lanes::PerWorker));
}

#[test]
fn a_unix_socket_is_shared_without_a_word() {
    let app = only("[skill.a]\nkind = \"service\"\ncommand = [\"a\"]\nlisten = \"unix:a.sock\"");
    assert_eq!((app.balance, app.lanes()), (Balance::Shared, Lanes::PerGeneration));
    assert_eq!(app.listen["http"].to_string(), format!("unix:{}/a.sock", app.cwd));
}

#[test]
fn each_proof_of_readiness_and_life_is_read() {
    let ready =
        |keys: &str| only(&format!("[agent.a]\ncommand = [\"a\"]\nlisten = \"80\"\nready = {keys}")).ready.check;
    assert_eq!(ready("\"notify\""), ReadyCheck::Notify);
    assert_eq!(ready("{ notify = true }"), ReadyCheck::Notify);
    assert_eq!(ready("\"running\""), ReadyCheck::Running);
    assert_eq!(ready("{ listening = true, timeout = \"1s\" }"), ReadyCheck::Listening);
    assert_eq!(ready("{ timeout = \"1s\", running = true }"), ReadyCheck::Running);
    assert_eq!(ready("{ log = \"Up (on {port})\" }"), ReadyCheck::Log("Up (on {port})".to_owned()));
    assert_eq!(
        ready("{ command = [\"x\", \"{fd:http}\"] }"),
        ReadyCheck::Command(vec!["x".into(), "{fd:http}".into()])
    );
    let live = |keys: &str| only(&format!("[agent.a]\ncommand = [\"a\"]\nlisten = \"80\"\nlive = {keys}")).live;
    let watchdog = live("{ watchdog = \"30s\" }").expect("it is written");
    assert_eq!((watchdog.check, watchdog.every, watchdog.failures), (LiveCheck::Watchdog, Duration::from_secs(30), 1));
    let http = live("{ http = \"/up?x=1\", status = \"200-299\" }").expect("it is written");
    let check = HttpCheck { path: "/up?x=1".to_owned(), on: "http".to_owned(), status_min: 200, status_max: 299 };
    assert_eq!((http.check, http.failures), (LiveCheck::Http(check), 3));
    let command = live("{ command = [\"x\"] }").expect("it is written");
    assert_eq!(command.check, LiveCheck::Command(vec!["x".to_owned()]));
}

#[test]
fn bounds_of_the_grace_give_way_to_what_is_written() {
    let grace = |keys: &str| only(&format!("[agent.a]\ncommand = [\"a\"]\ngrace = {keys}")).grace;
    let long = grace("{ default = \"2h\" }");
    assert_eq!((long.default, long.max), (Duration::from_secs(7200), Duration::from_secs(7200)));
    let short = grace("{ max = \"500ms\" }");
    let half = Duration::from_millis(500);
    assert_eq!((short.min, short.default, short.max), (half, half, half));
}

#[test]
fn a_stored_app_equals_the_one_that_was_read() {
    let text = serde_json::to_string(&only(WHOLE)).expect("an app has a JSON form");
    assert_eq!(serde_json::from_str::<AppConfig>(&text).expect("it was just written"), only_in_place(WHOLE, &text));
}

/// The app read again, in the folder that the stored one was read in.
fn only_in_place(text: &str, stored: &str) -> AppConfig {
    let stored: serde_json::Value = serde_json::from_str(stored).expect("it was just written");
    AppConfig { cwd: stored["cwd"].as_str().expect("a path").into(), ..only(text) }
}

proptest! {
    #[test]
    fn any_target_survives_being_stored(target in 0.000_001f64..0.999_999) {
        let app = only(&format!("[agent.a]\ncommand = [\"a\"]\ngrace = {{ target = {target} }}"));
        let text = serde_json::to_string(&app).expect("an app has a JSON form");
        prop_assert_eq!(serde_json::from_str::<AppConfig>(&text).expect("it was just written"), app);
    }

    #[test]
    fn bytes_of_any_kind_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (_dir, path) = folder(&[]);
        std::fs::write(path.join("a.toml"), bytes).expect("the folder takes files");
        let _ = load(&path);
    }

    #[test]
    fn toml_of_any_kind_never_panics(
        keys in proptest::collection::vec((
            "command|cwd|env|env_file|workers|listen|balance|ready|live|restart|stop|grace|reload|limits|log|umask|x",
            "\"[{}:a-z0-9./é]*\"|[0-9._-]{1,9}|true|\\[\"a\", 1\\]|\\{ (http|tcp|max|min|default|a) = (1|\"/é\"|true) \\}",
        ), 0..6),
    ) {
        let lines: Vec<_> = keys.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        let (_dir, path) = folder(&[("a.toml", &format!("[skill.a]\n{}", lines.join("\n")))]);
        if let Err(found) = load(&path) {
            prop_assert!(found.iter().all(|diagnostic| diagnostic.to_string().starts_with("error: ")));
        }
    }
}

#[test]
fn an_unknown_key_is_shown_with_its_line_and_the_nearest_known_key() {
    let (_dir, path) = folder(&[("a.toml", "[agent.a]\ncommand = [\"a\"]\nreload = { max_urge = 1 } # x")]);
    let text = rendered(&load(&path).expect_err("it is wrong"), &path);
    let lines = [
        "error: unknown key `max_urge` in `reload`",
        " --> a.toml:3:12",
        "  |",
        "3 | reload = { max_urge = 1 } # x",
        "  |            ^^^^^^^^",
        "  = expected: `strategy`, `max_surge`, `max_unavailable` or `settle`",
        "  = help: did you mean `max_surge`?",
    ];
    assert_eq!(text, lines.join("\n"));
}

/// The texts that the tables below repeat.
const DURATION: &str = "[a duration such as \"500ms\", \"5s\" or \"1h30m\"]";
const PROOFS: &str = "[one of `http`, `notify`, `protocol`, `log`, `command`, `listening`, `running`]";
const COMMAND: &str = "[a list of the program and its arguments, such as [\"python3\", \"agent.py\"]]";
const ADDRESS: &str =
    "[an address such as \"0.0.0.0:8080\", \"[::]:8080\", \"unix:/run/app.sock\" or \"unix-dgram:/run/app.sock\"]";

fn assert_each(table: &[(&str, &str)]) {
    for (keys, expected) in table {
        let expected = expected.replace("<DURATION>", DURATION).replace("<PROOFS>", PROOFS);
        let expected = expected.replace("<COMMAND>", COMMAND).replace("<ADDRESS>", ADDRESS);
        assert_eq!(wrong(keys), [expected], "{keys}");
    }
}

#[test]
fn a_bad_amount_says_what_was_expected() {
    assert_each(&[
        ("workers = 0", "3:11-12 `workers` cannot be 0 [a whole number from 1 to 1024]"),
        ("workers = -1", "3:11-13 `workers` cannot be -1 [a whole number from 1 to 1024]"),
        ("workers = 1.5", "3:11-14 `workers` cannot be a number [a whole number from 1 to 1024]"),
        ("workers = \"2\"", "3:11-14 `workers` cannot be a text [a whole number from 1 to 1024]"),
        ("listen_pid = 1", "3:14-15 `listen_pid` cannot be a whole number [true or false]"),
        (
            "stop.timeout = 5",
            "3:16-17 `timeout` cannot be a whole number <DURATION> (put it into quotes, with its unit if it has one)",
        ),
        ("stop.timeout = \"5\"", "3:16-19 `timeout`: \"5\" has no unit <DURATION>"),
        ("stop.signal = \"SIGNAL\"", "3:15-23 `signal`: there is no signal \"SIGNAL\" [a signal such as \"SIGTERM\"]"),
        (
            "restart.backoff = \"30s..1s\"",
            "3:19-28 `backoff`: the range \"30s..1s\" ends before it starts [a range of durations such as \"100ms..30s\"]",
        ),
        (
            "restart.backoff = \"0s..1s\"",
            "3:19-27 `backoff` cannot start at no time at all: a worker that crashes at once would be started without end",
        ),
        (
            "restart.max = \"10\"",
            "3:15-19 `max`: \"10\" is not of the form COUNT in DURATION [a rate such as \"10 in 5m\"]",
        ),
        (
            "restart.policy = \"on_failure\"",
            "3:18-30 `policy` cannot be \"on_failure\" [\"always\", \"on-failure\" or \"never\"] (did you mean \"on-failure\"?)",
        ),
        (
            "grace = { min = \"1h\", max = \"1m\" }",
            "3:9-35 `grace` has min = 1h, default = 1m, max = 1m [min ≤ default ≤ max]",
        ),
        ("grace.target = 1", "3:16-17 `target` cannot be 1 [a number above 0 and below 1]"),
        ("grace.target = nan", "3:16-19 `target` cannot be nan [a number above 0 and below 1]"),
        (
            "reload.max_surge = 0",
            "3:1-7 with max_surge = 0 and max_unavailable = 0 no worker could ever be replaced (let one worker be above (max_surge = 1) or missing (max_unavailable = 1))",
        ),
        ("limits.memory = \"2X\"", "3:17-21 `memory`: \"X\" is no unit of size [a size such as \"50M\" or \"2G\"]"),
        ("limits.memory = \"2\"", "3:17-20 no program runs in 2 bytes of memory [at least \"1M\"]"),
        ("limits.cpu = \"half\"", "3:14-20 `cpu`: \"half\" is no percentage [a percentage such as \"150%\"]"),
        (
            "log.max_size = \"1K\"",
            "3:16-20 a log file of 1024 bytes would be put aside all the time [at least \"64K\"]",
        ),
        ("umask = \"0x\"", "3:9-13 `umask`: \"0x\" is no file mode mask [an octal mask as a text, such as \"0027\"]"),
    ]);
}

#[test]
fn a_bad_proof_says_what_was_expected() {
    assert_each(&[
        (
            "ready = \"listenning\"\nlisten = \"80\"",
            "3:9-21 `ready` cannot be \"listenning\" [\"running\", \"listening\", \"notify\" or \"protocol\" or a table with `http`, `on`, `status`, `notify`, `protocol`, `log`, `command`, `listening`, `running` or `timeout`] (did you mean \"listening\"?)",
        ),
        (
            "ready = \"listening\"",
            "3:9-20 the app listens on nothing, so it can never be seen listening (add `listen`, or take \"running\" or \"notify\")",
        ),
        ("ready = {}", "3:9-11 `ready` names no proof <PROOFS>"),
        ("ready = { notify = true, log = \"x\" }", "3:26-29 `ready` asks for `notify` and for `log` <PROOFS>"),
        ("ready = { notify = false }", "3:20-25 `notify` can only be true (leave it out instead)"),
        ("ready = { log = \"\" }", "3:17-19 `log` is one text within a line, and every line contains nothing"),
        (
            "ready = { notify = true, on = \"http\" }",
            "3:26-28 `on` means nothing beside `notify` (it goes with `http`)",
        ),
        ("ready = { command = [] }", "3:21-23 `command` names no program"),
        ("ready = { http = \"/x\" }", "3:18-22 `http` has no listener to ask on: the app accepts no connections"),
        (
            "ready = { http = \"x y\" }\nlisten = \"80\"",
            "3:18-23 \"x y\" is no path of a request [a path such as \"/health\", without spaces, host or method]",
        ),
        (
            "ready = { http = \"/\", on = \"htp\" }\nlisten = \"80\"",
            "3:28-33 the app has no listener \"htp\" (did you mean \"http\"?)",
        ),
        (
            "ready = { http = \"/\", status = \"300-200\" }\nlisten = \"80\"",
            "3:32-41 `status` cannot be \"300-200\" [a range such as \"200-399\" within 100 to 599]",
        ),
        (
            "ready.http = \"/\"\nlisten = { a = \"80\", b = \"81\" }",
            "3:14-17 `http` could be asked on several listeners (say which: `on = \"NAME\"`)",
        ),
        (
            "ready = { http = \"/\", on = \"a\" }\nlisten.a = \"unix-dgram:/a\"",
            "3:28-31 the listener \"a\" takes datagrams, not connections",
        ),
        (
            "live = { watchdog = \"3s\", every = \"1s\" }",
            "3:27-32 `every` means nothing beside `watchdog` (it goes with `http`, `tcp`, `command`)",
        ),
        ("live.watchdog = \"0s\"", "3:17-21 `watchdog` cannot be no time at all"),
        (
            "live = true",
            "3:8-12 `live` cannot be true or false [a table with `http`, `on`, `status`, `tcp`, `command`, `watchdog`, `every`, `timeout` or `failures`]",
        ),
    ]);
}

#[test]
fn a_bad_listener_or_placeholder_says_what_was_expected() {
    assert_each(&[
        ("listen = \"http\"", "3:10-16 `listen`: \"http\" is no address to listen on <ADDRESS>"),
        ("listen.a = \"127.0.0.1:0\"", "3:12-25 `listen.a`: port 0 would be another port at every start <ADDRESS>"),
        ("listen = 70000", "3:10-15 `listen`: \"70000\" is no port"),
        (
            "listen.1a = \"80\"",
            "3:8-10 a listener cannot be called \"1a\" [a letter, then up to 63 of a-z, A-Z, 0-9, '_' and '-']",
        ),
        (
            "listen.a-b = \"80\"\nlisten.a_b = \"81\"",
            "4:8-11 the listeners `a-b` and `a_b` would both be told to workers as AGENTD_FD_A_B",
        ),
        (
            "listen.a = \"80\"\nlisten.b = \"127.0.0.1:80\"",
            "4:12-26 127.0.0.1:80 is taken by `a` as 0.0.0.0:80 at a.toml:3",
        ),
        (
            "balance = \"spread\"\nlisten = \"unix:/a\"",
            "3:11-19 `balance` cannot be \"spread\" while the listener \"http\" is unix:/a (a Unix socket has one accept queue: take \"shared\", or leave `balance` out)",
        ),
        (
            "env.A = \"{fd:htp}\"\nlisten = \"80\"",
            "3:9-19 the placeholder names the listener \"htp\", which the app has not (did you mean \"http\"?)",
        ),
        (
            "env.A = \"{port:http}\"",
            "3:9-22 the placeholder names the listener \"http\", which the app has not (the app listens on nothing: add `listen.http = \"0.0.0.0:8080\"`)",
        ),
        (
            "env.A = \"{port:http}\"\nlisten = \"unix:/a\"",
            "3:9-22 the listener \"http\" is a Unix socket and has neither host nor port (take its descriptor: {fd:http})",
        ),
        ("env.AGENTD_APP = \"x\"", "3:5-15 agentd sets `AGENTD_APP` itself (leave it out)"),
        ("env.A = [1]", "3:9-12 `env.A` cannot be a list [a text]"),
        ("env.A = \"a\\u0000\"", "3:9-18 `env.A` holds a zero byte, which no program can be given"),
        ("env.\"A=\" = \"a\"", "3:5-9 an environment variable cannot be called so"),
        ("cwd = \"gone\"", "3:7-13 cwd does not exist: gone"),
        ("cwd = \"~/x\"", "3:7-12 cwd does not exist: ~/x (`~` is not expanded: write the whole path)"),
        ("cwd = \"a.toml\"", "3:7-15 cwd is not a folder: a.toml"),
        ("env_file = \"gone.env\"", "3:12-22 env_file does not exist: gone.env"),
        ("env_file = [\"a.toml\"]", "3:13-21 `env_file`: read a.toml: line 1: there is no '=' after a name"),
    ]);
}

#[test]
fn what_this_version_does_not_do_is_refused_in_plain_words() {
    assert_each(&[
        ("releases = {}", "3:1-9 `releases` means nothing without `source` (the app runs in place, in `cwd`)"),
        (
            "routing = \"proxy\"",
            "3:11-18 `routing` = \"proxy\" is not supported by this version of agentd (workers take the listening descriptor themselves)",
        ),
    ]);
    let session = wrong("session = {}");
    assert_eq!(session.len(), 1);
    assert!(session[0].contains("`session` is not supported by this version of agentd"), "{session:?}");
    let mcp = wrong_file("[skill.a]\ncommand = [\"a\"]\nkind = \"mcp\"");
    assert_eq!(
        mcp,
        [
            "3:8-13 `kind` = \"mcp\" is not supported by this version of agentd (run it as a \"service\" with a socket of its own)"
        ]
    );
    let roles = wrong_file("[daemon]\nroles = {}");
    let refused = "1:2-8 who may use the daemon is not said beside apps (write it into daemon.toml \
                   (docs/reference/paths.md), which the daemon reads when it starts)";
    assert_eq!(roles, [refused]);
}

#[test]
fn a_key_at_the_wrong_place_is_shown_the_right_one() {
    let helps = [
        ("worker = 1", "did you mean `workers`?"),
        ("listen-pid = true", "did you mean `listen_pid`?"),
        ("instances = 1", "agentd calls it `workers`"),
        ("memory = \"1G\"", "`memory` is a key of `limits`: write `limits.memory = …`"),
    ];
    for (keys, help) in helps {
        let found = wrong(keys);
        assert!(found.len() == 1 && found[0].ends_with(&format!("({help})")), "{found:?}");
    }
    let unlike = wrong("colour = 1");
    assert!(unlike.len() == 1 && unlike[0].contains("`umask`, `routing`"), "{unlike:?}");
}

#[test]
fn a_table_of_apps_holds_apps() {
    let list = "[agent]\ncommand = [\"a\"]";
    let found = wrong_file(list);
    assert!(
        found.len() == 1 && found[0].ends_with("(an app is a table of its own: write `[agent.NAME]` above its keys)")
    );
    assert_eq!(
        wrong_file("[agents.a]")[0],
        "1:2-8 unknown key `agents` in the file [`agent`, `skill`, `hooks` or `daemon`] (did you mean `agent`?)"
    );
    assert_eq!(wrong_file("[agent.\"a b\"]\ncommand = 1").len(), 2);
    assert_eq!(wrong_file("[daemon]\nx = 1"), ["2:1-2 unknown key `x` in `daemon` [`roles` or `logs`]"]);
    let command =
        "2:11-24 `command` cannot be a text <COMMAND> (write [\"python\", \"a.py\"])".replace("<COMMAND>", COMMAND);
    assert_eq!(wrong_file("[agent.a]\ncommand = \"python a.py\""), [command]);
    assert_eq!(
        wrong_file("[agent.a]"),
        ["1:8-9 there is no `command` to run [`command = [\"PROGRAM\", \"ARGUMENT\", …]`]"]
    );
    assert_eq!(
        wrong_file("[skill.a]\ncommand = [\"a\"]\nkind = \"service\""),
        [
            "3:8-17 a skill of the kind \"service\" listens on nothing (give it an address with `listen`, or take the kind \"worker\")"
        ]
    );
}

#[test]
fn text_that_is_not_toml_is_shown_where_it_breaks() {
    assert_eq!(
        wrong_file("[agent.a]\ncommand = [\"a\"]\nworkers = \nworkers = 2\n\n\ncwd = \"x"),
        [
            "3:11-12 this is not TOML: string values must be quoted [literal string]",
            "7:9-10 this is not TOML: invalid basic string [`\"`]"
        ]
    );
    assert_eq!(wrong_file("a = [1,\nb = 1\nc = 1\nd = 1\n").len(), 1);
    assert_eq!(wrong_file("[agent.a]\n[agent.a]"), ["2:8-9 this is not TOML: duplicate key"]);
}

#[test]
fn a_name_or_an_address_belongs_to_one_app_of_all_files() {
    let (_dir, path) = folder(&[
        ("1.toml", "[agent.a]\ncommand = [\"a\"]\nlisten = \"8080\""),
        ("2.toml", "[skill.a]\ncommand = [\"a\"]\n[agent.b]\ncommand = [\"b\"]\nlisten = \"[::]:8080\""),
        (".hidden.toml", "nonsense"),
        ("note.txt", "nonsense"),
    ]);
    let found = load(&path).expect_err("they clash");
    assert_eq!(
        brief(&found, &path),
        [
            "1:8-9 the name `a` is taken by the agent at 1.toml:1 (agents and skills share their names)",
            "5:10-21 [::]:8080 is taken by `a` as 0.0.0.0:8080 at 1.toml:3",
        ]
    );
}

#[test]
fn what_cannot_be_read_is_a_diagnostic_as_well() {
    let (_dir, path) =
        folder(&[("big.toml", &"#".repeat((1 << 20) + 1)), ("good.toml", "[agent.a]\ncommand = [\"a\"]")]);
    std::fs::write(path.join("latin.toml"), b"# a\n# \xe9t\xe9").expect("the folder takes files");
    std::fs::create_dir(path.join("sub.toml")).expect("the folder takes folders");
    nix::unistd::mkfifo(path.join("pipe.toml").as_std_path(), nix::sys::stat::Mode::S_IRUSR).expect("it takes pipes");
    let found = load(&path).expect_err("they cannot be read");
    assert_eq!(
        brief(&found, &path),
        [
            "0:0-0 the file has more than 1048576 bytes",
            "2:3-4 the file is not UTF-8 from here on",
            "0:0-0 it is not a regular file",
            "0:0-0 it is not a regular file",
        ]
    );
    assert_eq!(
        brief(&load(&path.join("gone")).expect_err("it is gone"), &path),
        ["0:0-0 there is no such file or folder"]
    );
    let (_dir, empty) = folder(&[]);
    assert_eq!(
        rendered(&load(&empty).expect_err("it is empty"), &empty),
        "error: the folder holds no *.toml file\n --> ."
    );
}

#[test]
fn a_worker_is_started_with_what_was_filled_in() {
    let (_dir, path) = folder(&[
        ("a.toml", &format!("{WHOLE}env_file = [\"1.env\", \"2.env\"]")),
        ("1.env", "A=1\nB=1\nMODEL=x"),
        ("2.env", "B=2"),
    ]);
    let app = load(&path).expect("it is sound").remove(0);
    let fds = BTreeMap::from([("http".to_owned(), 4), ("admin".to_owned(), 3)]);
    assert_eq!(app.expand_command(&fds), ["uvicorn", "app:app", "--fd", "4"]);
    let base = BTreeMap::from([("A".to_owned(), "0".to_owned()), ("HOME".to_owned(), "/".to_owned())]);
    let environment = app.environment(&base, &fds).expect("the files are there");
    for (name, value) in [
        ("A", "1"),
        ("B", "2"),
        ("F", "0.5"),
        ("HOME", "/"),
        ("MODEL", "llama-3.3"),
        ("N", "1"),
        ("ON", "true"),
        ("URL", "http://127.0.0.1:9090/"),
    ] {
        assert_eq!(environment.get(name).map(String::as_str), Some(value), "{name}");
    }
    std::fs::remove_file(path.join("2.env")).expect("it is ours");
    let gone = app.environment(&base, &fds).expect_err("the file is gone");
    assert_eq!(gone.to_string(), format!("read {path}/2.env"));
}

#[test]
fn the_example_is_sound() {
    let example = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/agentd.toml");
    let apps = load(&example).unwrap_or_else(|found| panic!("{}", rendered(&found, Utf8Path::new("/"))));
    assert!(apps.iter().any(|app| app.kind == AppKind::Agent) && apps.iter().any(|app| app.kind != AppKind::Agent));
    assert_eq!(apps.iter().flat_map(super::advise).collect::<Vec<_>>(), []);
}

#[test]
fn an_app_from_a_command_line_survives_being_stored() {
    let (_dir, cwd) = folder(&[("a", "#!/bin/sh")]);
    let start = super::AdhocStart {
        script: "a".to_owned(),
        name: None,
        workers: None,
        listen: Some("unix:a.sock".to_owned()),
        args: vec!["{\"fd\": {}}".to_owned()],
        cwd,
        path_env: String::new(),
        virtual_env: None,
    };
    let app = adhoc(start).expect("it can be started");
    assert_eq!(app.balance, Balance::Shared);
    let text = serde_json::to_string(&app).expect("an app has a JSON form");
    assert_eq!(serde_json::from_str::<AppConfig>(&text).expect("it was just written"), app);
}

#[test]
fn a_file_that_is_all_wrong_is_told_of_in_a_hundred_problems() {
    let keys: String = (0..2000).map(|n| format!("k{n} = 1\n")).collect();
    assert_eq!(wrong(&keys).len(), 100);
    let long = wrong(&format!("ready = \"{}\"", "x".repeat(100_000)));
    assert!(long.len() == 1 && long[0].len() < 2000, "{}", long[0].len());
}

#[test]
fn every_key_is_explained_in_the_documentation() {
    let page = include_str!("../../docs/design/configuration.md");
    let mut tables = vec![&DOCUMENT];
    while let Some(table) = tables.pop() {
        for key in table.keys() {
            assert!(page.contains(&format!("`{}`", key.name)), "`{}` of {} is not explained", key.name, table.name);
            assert!(!key.about.is_empty());
            tables.extend(key.form.alternatives().iter().filter_map(|form| match form {
                Form::Table(table) | Form::Tables(_, table) | Form::Map(_, Form::Table(table)) => Some(*table),
                Form::Flag
                | Form::Count(..)
                | Form::Counts(..)
                | Form::Fraction(..)
                | Form::Text(_)
                | Form::Texts(_)
                | Form::Word(_)
                | Form::Map(..)
                | Form::Either(_) => None,
            }));
        }
    }
}

#[test]
fn a_command_names_every_listener_or_looks_for_them() {
    let named =
        |command: &str, listen: &str| only(&format!("[agent.a]\ncommand = {command}\n{listen}")).names_every_listener();
    let two = "listen = { http = \"127.0.0.1:80\", admin = \"127.0.0.1:81\" }";
    assert!(named("[\"g\", \"-b\", \"fd://{fd:http}\", \"-b\", \"fd://{fd:admin}\"]", two));
    assert!(!named("[\"g\", \"-b\", \"fd://{fd:http}\"]", two));
    assert!(!named("[\"g\", \"{port:http}\"]", "listen = \"127.0.0.1:80\""));
    assert!(!named("[\"g\"]", ""), "there is nothing to name");
}

#[test]
fn what_an_app_needs_is_configured_beside_it_or_known_already_and_forms_no_circle() {
    let app = |name: &str, needs: &str| format!("[agent.{name}]\ncommand = [\"a\"]\nneeds = {needs}\n");
    assert_eq!(
        wrong_file(&(app("web", "[\"serch\"]") + &app("search", "[]"))),
        ["3:10-17 `web` needs `serch`, which nobody has configured (did you mean \"search\"?)"]
    );
    assert_eq!(
        wrong_file(&(app("a", "[\"b\"]") + &app("b", "[\"c\"]") + &app("c", "[\"a\"]"))),
        [
            "3:10-13 apps need each other in a circle: a → b → c → a (take one of these needs out: none of them could ever start)"
        ]
    );
    assert_eq!(
        wrong_file(&app("a", "[\"a\"]")),
        ["3:10-13 `a` needs itself (take one of these needs out: none of them could ever start)"]
    );
    let (_dir, path) = folder(&[("a.toml", &app("web", "[\"search\"]"))]);
    let known = super::Known::from([("search".parse().expect("a name"), std::collections::BTreeSet::new())]);
    assert!(super::load_among(&path, &known).is_ok());
    let back = super::Known::from([(
        "search".parse().expect("a name"),
        std::collections::BTreeSet::from(["web".parse().expect("a name")]),
    )]);
    let found = super::load_among(&path, &back).expect_err("it needs what needs it");
    assert!(found[0].message.contains("circle"), "{found:?}");
}

#[test]
fn schedules_and_patterns_that_make_no_sense_are_refused_with_their_line() {
    assert_each(&[
        ("cron_reload = { tz = \"UTC\" }", "3:15-29 `cron_reload` has no `at`"),
        (
            "cron_reload = { at = \"@daily\", tz = \"Nowhere\" }",
            "3:15-48 `cron_reload`: there is no time zone \"Nowhere\"",
        ),
        ("cron_reload = \"0 0 30 2 *\"", "3:15-27 `cron_reload`: \"0 0 30 2 *\" is never due"),
        ("watch = [\"!a\"]", "3:9-15 `watch` only says what is not watched"),
    ]);
}

#[test]
fn a_configuration_is_told_in_the_words_of_its_file() {
    let app = only(
        "[agent.a]\ncommand = [\"a\", \"b\"]\nlisten.http = \"127.0.0.1:8080\"\nready = { http = \"/h\" }\n\
         live = { watchdog = \"3s\" }\nstop = { signal = \"SIGINT\" }\nenv = { A = \"b\" }\nlimits = { cpu = \"150%\" }\n\
         cron_reload = { at = \"0 4 * * *\", tz = \"UTC\" }\nlog = { max_size = \"1M\" }",
    );
    let fields = super::describe(&app, Some("/a.toml")).fields;
    insta::assert_snapshot!(
        fields
            .iter()
            .filter(|(name, _)| *name != "cwd")
            .map(|(name, value)| format!("{name} = {value}\n"))
            .collect::<String>()
    );
}

#[test]
fn a_secret_is_a_place_and_whoever_writes_the_secret_itself_is_not_shown_it() {
    for line in [
        "secret.KEY = \"sk-hush\"",
        "secret = { KEY = { file = \"/nowhere/key\", value = \"sk-hush\" } }",
        "secret.KEY = { credential = \"a/b\", as = 1 }   # sk-hush",
    ] {
        let text = format!("[agent.a]\ncommand = [\"a\"]\n{line}\n");
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = Utf8PathBuf::from_path_buf(dir.path().join("a.toml")).expect("UTF-8");
        std::fs::write(&path, text).expect("written");
        let found = load(&path).expect_err("refused");
        assert!(!found.is_empty());
        for diagnostic in found {
            let shown = format!("{diagnostic} {diagnostic:?}");
            assert!(!shown.contains("hush"), "{shown}");
            assert!(shown.contains("not shown"), "{shown}");
        }
    }
}

#[test]
fn a_secret_has_one_place_a_name_of_its_own_and_a_file_that_is_there() {
    for (line, why) in [
        ("secret.KEY = { }", "`secret.KEY` is one of `file` and `credential`"),
        ("secret.KEY = { file = \"a\", credential = \"b\" }", "`secret.KEY` is one of `file` and `credential`"),
        ("secret.9K = { file = \"/dev/null\" }", "a secret cannot be called \"9K\""),
        ("secret.AGENTD_X = { file = \"/dev/null\" }", "a secret cannot be called \"AGENTD_X\""),
        ("env.KEY = \"x\"\nsecret.KEY = { file = \"/dev/null\" }", "`KEY` is a secret and stands in `env` as well"),
        ("secret.KEY = { file = \"/nowhere/key\" }", "failed to read /nowhere/key: No such file"),
        ("secret.KEY = { file = \"/dev/null\" }", "/dev/null: it is not a regular file"),
    ] {
        let found = wrong(line);
        assert!(found.iter().any(|found| found.contains(why)), "{line}: {found:?}");
    }
}

#[test]
fn a_user_that_nobody_is_refused_where_it_is_written() {
    let found = wrong("user = \"no-such-user-here\"");
    assert_eq!(found, ["3:8-27 there is no user \"no-such-user-here\""]);
    let found = wrong("group = \"no-such-group-here\"");
    assert_eq!(found, ["3:9-29 there is no group \"no-such-group-here\""]);
}
