//! Servers in Python: a variable of a module that is an ASGI or WSGI application.

use camino::{Utf8Path, Utf8PathBuf};

use super::{Finding, Listens, folder_name, health, on_path, source};

/// What makes an application, and how such a one is served.
const MAKERS: [(&str, Served, &str); 10] = [
    ("FastAPI", Served::Asgi, "a FastAPI app"),
    ("Starlette", Served::Asgi, "a Starlette app"),
    ("Quart", Served::Asgi, "a Quart app"),
    ("Litestar", Served::Asgi, "a Litestar app"),
    ("Sanic", Served::Asgi, "a Sanic app"),
    ("get_asgi_application", Served::Asgi, "a Django app (ASGI)"),
    ("Flask", Served::Wsgi, "a Flask app"),
    ("Bottle", Served::Wsgi, "a Bottle app"),
    ("get_wsgi_application", Served::Wsgi, "a Django app (WSGI)"),
    ("create_app", Served::Wsgi, "an app made by create_app()"),
];

/// Modules that are looked at first; the others come by name.
const FIRST: [&str; 6] = ["main.py", "app.py", "server.py", "api.py", "asgi.py", "wsgi.py"];

/// Where a virtual environment usually is.
const ENVIRONMENTS: [&str; 3] = [".venv", "venv", "env"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    Asgi,
    Wsgi,
}

/// An application, in the folder or one below it.
pub(super) fn find(folder: &Utf8Path) -> Option<Finding> {
    let (module, text, variable, served, what) = modules(folder).into_iter().find_map(|path| {
        let text = source(&path)?;
        let (variable, served, what) = application(&text)?;
        let module = path.strip_prefix(folder).ok()?.with_extension("").as_str().replace('/', ".");
        Some((module, text, variable, served, what))
    })?;
    let target = format!("{module}:{variable}");
    let mut finding = Finding { name: folder_name(folder), listens: Listens::Given, ..Finding::default() };
    finding.about.push(format!("{what}: {target}"));
    let (program, missing) = match served {
        Served::Asgi => ("uvicorn", "pip install uvicorn"),
        Served::Wsgi => ("gunicorn", "pip install gunicorn"),
    };
    let found = environment_program(folder, program).or_else(|| on_path(program));
    if found.is_none() {
        finding.about.push(format!("{program} was not found: {missing}, or name another server"));
    }
    let program = found.map_or_else(|| program.to_owned(), Utf8PathBuf::into_string);
    let words: &[&str] = match served {
        Served::Asgi => &[&target, "--fd", "{fd:http}"],
        Served::Wsgi => &["--bind", "fd://{fd:http}", "--workers", "1", &target],
    };
    finding.command = std::iter::once(program).chain(words.iter().map(|&word| word.to_owned())).collect();
    if served == Served::Wsgi {
        finding
            .keys
            .push(("balance = \"shared\"".to_owned(), Some("one queue: each worker serves one request at a time")));
    }
    match health(&text) {
        Some(path) => finding.keys.push((format!("ready = {{ http = \"{path}\" }}"), None)),
        None => finding
            .ideas
            .push("ready = { http = \"/health\" }          # a path that answers when the app can serve".to_owned()),
    }
    Some(finding)
}

/// Python files of the folder, then those of packages in it.
fn modules(folder: &Utf8Path) -> Vec<Utf8PathBuf> {
    let files = |of: &Utf8Path| {
        let mut names: Vec<String> = of
            .read_dir_utf8()
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_owned())
            .filter(|name| name.ends_with(".py") && !name.starts_with("test"))
            .collect();
        names.sort_by_key(|name| (FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()), name.clone()));
        names.into_iter().map(|name| of.join(name)).collect::<Vec<_>>()
    };
    let mut all = files(folder);
    let mut below: Vec<Utf8PathBuf> = folder
        .read_dir_utf8()
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir() && !entry.file_name().starts_with(['.', '_']))
        .filter(|entry| !ENVIRONMENTS.contains(&entry.file_name()) && entry.file_name() != "tests")
        .map(|entry| entry.path().to_owned())
        .collect();
    below.sort();
    below.truncate(32);
    all.extend(below.iter().flat_map(|folder| files(folder)));
    all
}

/// The first variable of the module itself that is an application.
fn application(text: &str) -> Option<(String, Served, &'static str)> {
    text.lines().find_map(|line| {
        let (left, right) = line.split_once('=')?;
        let variable = left.split(':').next()?.trim_end();
        let name = variable.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        // At the beginning of the line: of the module, not of a function.
        if variable.is_empty() || !name || line.starts_with(char::is_whitespace) {
            return None;
        }
        let maker = right.trim_start().split('(').next()?.rsplit('.').next()?.trim();
        let (_, served, what) = MAKERS.iter().find(|(known, ..)| *known == maker)?;
        right.contains('(').then(|| (variable.to_owned(), *served, *what))
    })
}

fn environment_program(folder: &Utf8Path, program: &str) -> Option<Utf8PathBuf> {
    let own = ENVIRONMENTS.iter().map(|name| folder.join(name));
    let active = std::env::var("VIRTUAL_ENV").ok().map(Utf8PathBuf::from);
    own.chain(active).map(|environment| environment.join("bin").join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_is_a_variable_of_the_module_made_by_a_known_framework() {
        let of = |text| application(text).map(|(variable, served, _)| (variable, served));
        assert_eq!(of("import x\napi = fastapi.FastAPI(title='a')\n"), Some(("api".to_owned(), Served::Asgi)));
        assert_eq!(of("app: Flask = Flask(__name__)"), Some(("app".to_owned(), Served::Wsgi)));
        assert_eq!(of("application = get_wsgi_application()"), Some(("application".to_owned(), Served::Wsgi)));
        for none in ["    app = FastAPI()", "app = FastAPI", "a.b = FastAPI()", "x == FastAPI()", "app = other()"] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
