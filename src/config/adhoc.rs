//! `agentctl start SCRIPT -i N --listen ADDR -- ARGS`: an app without a configuration file.
//!
//! Owns the question what runs a script: its extension, its `#!` line, or itself; and what a bare name means: a file
//! in the working directory first, else a command on the caller's `PATH`. The caller's `PATH` counts, not the
//! daemon's: programs are resolved here to absolute paths, and the workers get that `PATH`.
//!
//! A listener is passed like any other: as a descriptor. `PORT` and `HOST` are set beside it for programs that print
//! or announce them; a program that binds them itself fails, because the address is taken.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use agentd_core::id::{APP_NAME_MAX, AppName};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::app::AppConfig;
use super::diagnostic::{Diagnostic, Place};
use super::document::unknown_placeholders;
use crate::sockets::ListenAddr;

/// Workers that one app may have, as in a file.
const WORKERS_MAX: u32 = 1024;

/// Bytes of a `#!` line that the kernel reads.
const SHEBANG_MAX: u64 = 256;

/// What was asked for on the command line, with what it has to be understood by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdhocStart {
    /// A script, a program, or a command on `PATH`.
    pub script: String,
    /// The app's name; otherwise it is made from the script's.
    pub name: Option<String>,
    /// How many workers; otherwise 1.
    pub workers: Option<u32>,
    /// An address to listen on under the name "http".
    pub listen: Option<String>,
    /// Arguments of the script; placeholders are filled in as in a file.
    pub args: Vec<String>,
    /// The caller's working directory, absolute: the workers run in it.
    pub cwd: Utf8PathBuf,
    /// The caller's `PATH`.
    pub path_env: String,
    /// The caller's `VIRTUAL_ENV`, whose Python then runs Python scripts.
    pub virtual_env: Option<Utf8PathBuf>,
}

/// How a file with some extension is run: the first of these programs that is there, with these options.
struct Interpreter {
    extensions: &'static [&'static str],
    programs: &'static [&'static str],
    options: &'static [&'static str],
}

const INTERPRETERS: [Interpreter; 8] = [
    Interpreter { extensions: &["py"], programs: &["python3", "python"], options: &[] },
    Interpreter { extensions: &["js", "cjs", "mjs"], programs: &["node"], options: &[] },
    // Node from 22.6; later ones do it anyway and still take the option.
    Interpreter { extensions: &["ts", "cts", "mts"], programs: &["node"], options: &["--experimental-strip-types"] },
    Interpreter { extensions: &["sh"], programs: &["bash", "sh"], options: &[] },
    Interpreter { extensions: &["bash"], programs: &["bash"], options: &[] },
    Interpreter { extensions: &["rb"], programs: &["ruby"], options: &[] },
    Interpreter { extensions: &["pl"], programs: &["perl"], options: &[] },
    Interpreter { extensions: &["php"], programs: &["php"], options: &[] },
];

/// Makes an agent of what was asked for; everything that the command line does not tell has its default.
///
/// # Errors
/// Everything that is wrong: a script that is neither file nor command, an interpreter that is missing, a name, an
/// address or a number that is not allowed.
pub fn adhoc(start: AdhocStart) -> Result<AppConfig, Vec<Diagnostic>> {
    let mut found = Vec::new();
    let name = keep(&mut found, app_name(&start));
    let listen = keep(&mut found, listener(&start)).unwrap_or_default();
    let mut command = keep(&mut found, program(&start)).unwrap_or_default();
    if !start.cwd.is_absolute() || !start.cwd.is_dir() {
        found.push(refuse(format!("the working directory does not exist: {}", start.cwd)));
    }
    let workers = start.workers.unwrap_or(1);
    if !(1..=WORKERS_MAX).contains(&workers) {
        found.push(refuse(format!("there cannot be {workers} workers")).expected(format!("1 to {WORKERS_MAX}")));
    }
    let virtual_env = start.virtual_env.iter().map(|path| path.as_str());
    if start
        .args
        .iter()
        .map(String::as_str)
        .chain([start.path_env.as_str()])
        .chain(virtual_env)
        .any(|text| text.contains('\0'))
    {
        found.push(refuse(
            "an argument, PATH or VIRTUAL_ENV holds a zero byte, which no program can be given".to_owned(),
        ));
    }
    for arg in &start.args {
        for problem in unknown_placeholders(arg, &listen) {
            found.push(refuse(format!("{arg:?}: {}", problem.message)).help("say where to listen with --listen"));
        }
    }
    let Some(name) = name.filter(|_| found.is_empty()) else { return Err(found) };
    let env = environment(&start, &listen);
    command.extend(start.args);
    let mut app = AppConfig::new(name, command, start.cwd);
    app.workers = workers;
    app.ready.check = AppConfig::default_ready(&listen);
    app.balance = AppConfig::default_balance(&listen);
    app.listen = listen;
    app.env = env;
    Ok(app)
}

fn refuse(message: String) -> Diagnostic {
    Diagnostic::at(Place::whole("the command line"), message)
}

fn keep<T>(found: &mut Vec<Diagnostic>, result: Result<T, Box<Diagnostic>>) -> Option<T> {
    result.map_err(|diagnostic| found.push(*diagnostic)).ok()
}

fn listener(start: &AdhocStart) -> Result<BTreeMap<String, ListenAddr>, Box<Diagnostic>> {
    let Some(text) = &start.listen else { return Ok(BTreeMap::new()) };
    let address = ListenAddr::parse_in(text, &start.cwd).map_err(|why| {
        refuse(format!("--listen: {why}"))
            .expected("an address such as \"8080\", \"0.0.0.0:8080\" or \"unix:/run/app.sock\"")
    })?;
    Ok(BTreeMap::from([("http".to_owned(), address)]))
}

fn environment(start: &AdhocStart, listen: &BTreeMap<String, ListenAddr>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    if !start.path_env.is_empty() {
        env.insert("PATH".to_owned(), start.path_env.clone());
    }
    if let Some(virtual_env) = &start.virtual_env {
        env.insert("VIRTUAL_ENV".to_owned(), virtual_env.to_string());
    }
    if let Some((host, port)) = listen.get("http").and_then(|address| Some((address.host()?, address.port()?))) {
        env.insert("HOST".to_owned(), host.to_string());
        env.insert("PORT".to_owned(), port.to_string());
    }
    env
}

fn app_name(start: &AdhocStart) -> Result<AppName, Box<Diagnostic>> {
    if let Some(name) = &start.name {
        return name.parse().map_err(|why| refuse(format!("--name: {why}")).into());
    }
    let stem = Utf8Path::new(&start.script).file_stem().unwrap_or_default();
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '-' };
    let name: String =
        stem.chars().map(allowed).skip_while(|c| !c.is_ascii_alphanumeric()).take(APP_NAME_MAX).collect();
    let name = match name.trim_end_matches('-') {
        "" => "app",
        "all" => "all-1",
        name => name,
    };
    name.parse().map_err(|why| {
        refuse(format!("no name can be made from {:?}: {why}", start.script)).help("give one with --name").into()
    })
}

/// The words that run the script, without its arguments.
fn program(start: &AdhocStart) -> Result<Vec<String>, Box<Diagnostic>> {
    let script = &start.script;
    if script.is_empty() || script.contains('\0') {
        return Err(refuse("there is no script to start".to_owned()).into());
    }
    let path: Utf8PathBuf = start.cwd.join(script).components().collect();
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => {
            return run_file(start, &path, metadata.permissions().mode() & 0o111 != 0);
        }
        Ok(_) if script.contains('/') || on_path(start, script).is_none() => {
            return Err(refuse(format!("{path} is not a file"))
                .help("name the script in it, or a configuration file")
                .into());
        }
        Ok(_) | Err(_) => {}
    }
    if script.contains('/') {
        return Err(refuse(format!("{path} does not exist")).into());
    }
    on_path(start, script).map(|program| vec![program.into_string()]).ok_or_else(|| {
        let message = format!("\"{script}\" is neither a file in {} nor a command on PATH", start.cwd);
        refuse(message).help("give the path of a script, the name of a command, or a configuration file").into()
    })
}

fn run_file(start: &AdhocStart, path: &Utf8Path, executable: bool) -> Result<Vec<String>, Box<Diagnostic>> {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    if let Some(interpreter) = INTERPRETERS.iter().find(|known| known.extensions.contains(&extension.as_str())) {
        let mut words = vec![interpreter.resolve(start, path)?.into_string()];
        words.extend(interpreter.options.iter().map(|&option| option.to_owned()));
        words.push(path.to_string());
        return Ok(words);
    }
    if executable {
        return Ok(vec![path.to_string()]);
    }
    let mut words = shebang(path).ok_or_else(|| {
        let message = format!("{path} cannot be run: it is not executable, and nothing tells what runs it");
        refuse(message)
            .help("make it executable, start it with a #! line, or start its interpreter with it as an argument")
    })?;
    words.push(path.to_string());
    Ok(words)
}

impl Interpreter {
    fn resolve(&self, start: &AdhocStart, path: &Utf8Path) -> Result<Utf8PathBuf, Box<Diagnostic>> {
        if self.extensions == ["py"]
            && let Some(virtual_env) = &start.virtual_env
        {
            let python = virtual_env.join("bin/python");
            if is_executable(&python) {
                return Ok(python);
            }
        }
        self.programs.iter().find_map(|program| on_path(start, program)).ok_or_else(|| {
            refuse(format!("{path} is run by {}, which is not on PATH", self.programs.join(" or "))).into()
        })
    }
}

/// What the file's first line says runs it: the interpreter and, as the kernel does it, the rest as one argument.
fn shebang(path: &Utf8Path) -> Option<Vec<String>> {
    let mut head = Vec::new();
    std::fs::File::open(path).ok()?.take(SHEBANG_MAX).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|&b| b == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.trim();
    let (interpreter, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let words = [interpreter, rest.trim()].into_iter().filter(|word| !word.is_empty());
    interpreter.starts_with('/').then(|| words.map(str::to_owned).collect())
}

/// The first program of this name in an absolute folder of the caller's `PATH`.
fn on_path(start: &AdhocStart, name: &str) -> Option<Utf8PathBuf> {
    let folders = start.path_env.split(':').filter(|folder| folder.starts_with('/'));
    folders.map(|folder| Utf8Path::new(folder).join(name)).find(|program| is_executable(program))
}

fn is_executable(path: &Utf8Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::super::app::ReadyCheck;
    use super::super::tests::folder;
    use super::*;

    struct Desk {
        _dir: tempfile::TempDir,
        cwd: Utf8PathBuf,
    }

    impl Desk {
        fn new() -> Self {
            let (dir, cwd) = folder(&[
                ("my agent.py", ""),
                ("run.TS", ""),
                ("tool", "#!/usr/bin/env -S perl -w\n"),
                ("mute", "echo"),
                ("all.sh", ""),
            ]);
            std::fs::create_dir_all(cwd.join("bin")).expect("the folder takes folders");
            for program in ["python3", "node", "sleep", "sh"] {
                let program = cwd.join("bin").join(program);
                std::fs::write(&program, "").expect("the folder takes files");
                std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
            }
            Self { _dir: dir, cwd }
        }

        fn start(&self, script: &str) -> AdhocStart {
            AdhocStart {
                script: script.to_owned(),
                name: None,
                workers: None,
                listen: None,
                args: Vec::new(),
                cwd: self.cwd.clone(),
                path_env: format!("relative:{}/bin", self.cwd),
                virtual_env: None,
            }
        }

        fn command(&self, script: &str) -> (String, String) {
            let app = adhoc(self.start(script)).expect("it can be started");
            (app.name.to_string(), app.command.join(" ").replace(self.cwd.as_str(), "."))
        }

        fn wrong(&self, start: AdhocStart) -> Vec<String> {
            let found = adhoc(start).expect_err("it is wrong");
            found.iter().map(|d| d.message.replace(self.cwd.as_str(), ".")).collect()
        }
    }

    #[test]
    fn a_script_is_run_by_what_its_extension_its_first_line_or_its_mode_says() {
        let desk = Desk::new();
        for (script, name, command) in [
            ("my agent.py", "my-agent", "./bin/python3 ./my agent.py"),
            ("./run.TS", "run", "./bin/node --experimental-strip-types ./run.TS"),
            ("tool", "tool", "/usr/bin/env -S perl -w ./tool"),
            ("all.sh", "all-1", "./bin/sh ./all.sh"),
            ("bin/sleep", "sleep", "./bin/sleep"),
            ("sleep", "sleep", "./bin/sleep"),
        ] {
            assert_eq!(desk.command(script), (name.to_owned(), command.to_owned()));
        }
    }

    #[test]
    fn the_python_of_an_active_virtual_environment_runs_python_scripts() {
        let desk = Desk::new();
        std::fs::rename(desk.cwd.join("bin/python3"), desk.cwd.join("bin/python")).expect("it is ours");
        let start =
            AdhocStart { virtual_env: Some(desk.cwd.clone()), path_env: String::new(), ..desk.start("my agent.py") };
        let app = adhoc(start).expect("it can be started");
        assert_eq!(app.command[0], desk.cwd.join("bin/python").as_str());
        assert_eq!(app.env["VIRTUAL_ENV"], desk.cwd.as_str());
    }

    #[test]
    fn a_listener_is_called_http_and_told_beside_as_port_and_host() {
        let desk = Desk::new();
        let app = adhoc(AdhocStart {
            listen: Some("8080".to_owned()),
            workers: Some(3),
            args: vec!["--fd".to_owned(), "{fd:http}".to_owned()],
            ..desk.start("my agent.py")
        })
        .expect("it can be started");
        assert_eq!((app.workers, app.listen["http"].to_string()), (3, "0.0.0.0:8080".to_owned()));
        assert_eq!((app.env["PORT"].as_str(), app.env["HOST"].as_str()), ("8080", "0.0.0.0"));
        assert_eq!(app.ready.check, ReadyCheck::Listening);
        assert_eq!(app.expand_command(&BTreeMap::from([("http".to_owned(), 3)]))[2..], ["--fd", "3"]);
    }

    #[test]
    fn everything_wrong_with_a_command_line_is_told_at_once() {
        let desk = Desk::new();
        let start = AdhocStart {
            name: Some("a/b".to_owned()),
            workers: Some(0),
            listen: Some("nowhere".to_owned()),
            args: vec!["{fd:http}".to_owned()],
            ..desk.start("nothing")
        };
        let expected = [
            "--name: app name \"a/b\" may only hold a-z, A-Z, 0-9, '_' and '-', and starts with a letter or digit",
            "--listen: \"nowhere\" is no address to listen on",
            "\"nothing\" is neither a file in . nor a command on PATH",
            "there cannot be 0 workers",
            "\"{fd:http}\": the placeholder names the listener \"http\", which the app has not",
        ];
        assert_eq!(desk.wrong(start), expected);
        for (script, message) in [
            ("mute", "./mute cannot be run: it is not executable, and nothing tells what runs it"),
            ("bin", "./bin is not a file"),
            ("./gone.py", "./gone.py does not exist"),
            ("", "there is no script to start"),
        ] {
            assert_eq!(desk.wrong(desk.start(script)), [message]);
        }
        let no_path = AdhocStart { path_env: String::new(), ..desk.start("my agent.py") };
        assert_eq!(desk.wrong(no_path), ["./my agent.py is run by python3 or python, which is not on PATH"]);
    }
}
