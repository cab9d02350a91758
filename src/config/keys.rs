//! Every key that a configuration may hold, in one place: what it takes, what it is for, and whether this version
//! acts on it.
//!
//! The reader, the nearest-key suggestions and the JSON schema all come from these tables, so none can know a key
//! that another does not. A key that the product has and this version has not is listed as [`Support::Later`]: it is
//! refused in plain words and never passed over.

use super::form::{Form, Key, Support, Table, Word};

const fn now(name: &'static str, form: Form, about: &'static str) -> Key {
    Key { name, form, about, support: Support::Now }
}

const fn later(name: &'static str, form: Form, about: &'static str, instead: &'static str) -> Key {
    Key { name, form, about, support: Support::Later(instead) }
}

const fn word(name: &'static str) -> Word {
    Word { name, support: Support::Now }
}

const fn later_word(name: &'static str, instead: &'static str) -> Word {
    Word { name, support: Support::Later(instead) }
}

const DURATION: Form = Form::Text("a duration such as \"500ms\", \"5s\" or \"1h30m\"");
const SIZE: Form = Form::Text("a size such as \"50M\" or \"2G\"");
const SHARE: Form = Form::Text("a percentage such as \"10%\", or \"off\"");
const COMMAND: Form = Form::Texts("a list of the program and its arguments, such as [\"python3\", \"agent.py\"]");
const ADDRESS: Form = Form::Text(
    "an address such as \"0.0.0.0:8080\", \"[::]:8080\", \"unix:/run/app.sock\" or \"unix-dgram:/run/app.sock\"",
);
const WHO: Form = Form::Texts("a list of users and groups, such as [\"alice\", \"1000\", \"group:ops\"]");
const USER: Form = Form::Text("a user's name or number");
const GROUP: Form = Form::Text("a group's name or number");
const HOOKS_FORM: Form = Form::Tables("a list of tables, each below a line [[hooks]]", &HOOK);
/// What stands for the value of keys that no version reads yet.
const TABLE: Form = Form::Map("a table", &Form::Text("a text"));

/// A whole file.
pub(super) static DOCUMENT: Table = Table {
    name: "the file",
    first: &[],
    keys: &[
        now("agent", Form::Map("tables `[agent.NAME]`", &Form::Table(&AGENT)), "agents, by name"),
        now("skill", Form::Map("tables `[skill.NAME]`", &Form::Table(&SKILL)), "skills, by name"),
        now("hooks", HOOKS_FORM, "commands that are run when something happens to any app of the file"),
        now("daemon", Form::Table(&DAEMON), "settings of the daemon itself; in daemon.toml, and not beside apps"),
    ],
};

/// `[daemon]`.
pub(super) static DAEMON: Table = Table {
    name: "`daemon`",
    first: &[],
    keys: &[
        now("roles", Form::Table(&ROLES), "who may view and who may operate, beside root and the daemon's own user"),
        now("logs", Form::Table(&DAEMON_LOGS), "the logs of all apps together"),
    ],
};

/// `daemon.logs`.
static DAEMON_LOGS: Table = Table {
    name: "`logs`",
    first: &[],
    keys: &[now(
        "keep_bytes",
        SIZE,
        "how much all logs may take on the disk; what was put aside first goes first; 10G",
    )],
};

/// `daemon.toml`.
pub(super) static SETTINGS: Table = Table {
    name: "the daemon's settings",
    first: &[],
    keys: &[now("daemon", Form::Table(&DAEMON), "the daemon itself")],
};

/// `daemon.roles`.
static ROLES: Table = Table {
    name: "`roles`",
    first: &[],
    keys: &[now("view", WHO, "who may look"), now("operate", WHO, "who may look and change")],
};

/// The keys of every app.
static APP: [Key; 35] = [
    now(
        "command",
        COMMAND,
        "the program and its arguments; {fd:NAME}, {host:NAME} and {port:NAME} stand for those of a listener",
    ),
    now("cwd", Form::Text("a folder"), "working directory; relative to the file's folder, which is the default"),
    now("env", Form::Map("a table of texts", &Form::Text("a text")), "environment variables, which win over env_file"),
    now(
        "env_file",
        Form::Either(&[Form::Text("a file"), Form::Texts("a list of files")]),
        "files of NAME=value lines, read at every start",
    ),
    now("workers", Form::Count(1, 1024), "how many workers serve"),
    now(
        "listen",
        Form::Either(&[ADDRESS, Form::Map("a table of addresses by listener name", &ADDRESS)]),
        "where the app listens; one address is the listener \"http\"",
    ),
    now("listen_pid", Form::Flag, "whether LISTEN_PID is set; false for wrappers that fork"),
    now("balance", Form::Word(&[word("spread"), word("shared")]), "a queue a worker, or one for all"),
    now(
        "ready",
        Form::Either(&[
            Form::Word(&[word("running"), word("listening"), word("notify"), word("protocol")]),
            Form::Table(&READY),
        ]),
        "what proves that a worker is ready",
    ),
    now("live", Form::Table(&LIVE), "what proves that a worker still lives"),
    now("restart", Form::Table(&RESTART), "what follows an exit that nobody asked for"),
    now("stop", Form::Table(&STOP), "how a worker is asked to end"),
    now("grace", Form::Table(&GRACE), "how long a drain may take"),
    now("reload", Form::Table(&RELOAD), "room for a rollout"),
    now("tasks", Form::Table(&TASKS), "what is done about tasks, and how much is kept of them"),
    now("limits", Form::Table(&LIMITS), "what one worker may use"),
    now("log", Form::Table(&LOG), "what becomes of a worker's output"),
    now("hooks", HOOKS_FORM, "commands that are run when something happens to the app"),
    now("umask", Form::Text("an octal mask as a text, such as \"0027\""), "file mode mask of the workers"),
    now(
        "routing",
        Form::Word(&[word("kernel"), later_word("proxy", "workers take the listening descriptor themselves")]),
        "who sends connections to workers",
    ),
    now(
        "source",
        Form::Text("a folder, an archive (.tar, .tar.gz, .tar.zst) or \"git:REPOSITORY#REFERENCE\""),
        "where releases are cut from; without it the app runs in place, in `cwd`",
    ),
    now("releases", Form::Table(&RELEASES), "how many releases are kept, and how large one may be"),
    now("changes", Form::Table(&CHANGES), "which files and variables are which part of it, for `upgrade --dry-run`"),
    now("upgrade", Form::Table(&UPGRADE), "how a new release takes the place of the old one"),
    now("gates", Form::Table(&GATES), "what a new release must hold to"),
    later("session", TABLE, "tasks that must see one version", ""),
    now("refresh", Form::Table(&REFRESH), "how workers renew what they know without a reload"),
    now(
        "watch",
        Form::Texts("a list of patterns, such as [\"app/**/*.py\", \"!app/generated/**\"]"),
        "files below `cwd` whose change reloads the app, for development; `!` leaves out, as .gitignore does",
    ),
    now(
        "cron_reload",
        Form::Either(&[Form::Text("a schedule such as \"0 4 * * *\""), Form::Table(&CRON)]),
        "a reload by the clock; none while a deployment runs",
    ),
    now(
        "needs",
        Form::Texts("a list of the names of apps"),
        "apps that must be ready once before this one starts, and that end after it",
    ),
    now(
        "secret",
        Form::Map("a table of tables by name", &Form::Table(&SECRET)),
        "secrets by name, read at every start",
    ),
    now(
        "ipc",
        Form::Word(&[word("node")]),
        "gives a Node program its channel to agentd: `process.send('ready')` is READY=1",
    ),
    now("user", USER, "who the workers run as, where the daemon is root"),
    now("group", GROUP, "whose group the workers run in; the user's own without it"),
    now("groups", Form::Texts("a list of groups"), "groups beside those that the user is in"),
];

/// One secret.
pub(super) static SECRET: Table = Table {
    name: "a secret",
    first: &[],
    keys: &[
        now("file", Form::Text("a file"), "the file that holds it; relative to the configuration's folder"),
        now("credential", Form::Text("a name"), "the systemd credential that holds it (LoadCredential=)"),
        now(
            "as",
            Form::Word(&[word("env"), word("file")]),
            "by which road: a variable of its name, or a private file that NAME_FILE names; env without it",
        ),
    ],
};

/// `[agent.NAME]`.
pub(super) static AGENT: Table = Table { name: "an agent", keys: &APP, first: &[] };

/// `[skill.NAME]`.
pub(super) static SKILL: Table = Table {
    name: "a skill",
    keys: &APP,
    first: &[now(
        "kind",
        Form::Word(&[
            word("service"),
            word("worker"),
            later_word("mcp", "run it as a \"service\" with a socket of its own"),
        ]),
        "owns a socket, or takes tasks",
    )],
};

const ON: Key = now(
    "on",
    Form::Text("a listener's name"),
    "the listener to ask on; without it the one named \"http\", or the only one",
);
const STATUS: Key = now(
    "status",
    Form::Either(&[Form::Text("a range such as \"200-399\""), Form::Count(100, 599)]),
    "answers that count as good; 200-399 without it",
);
const PATH: Form = Form::Text("a path such as \"/health\"");

/// `ready`.
pub(super) static READY: Table = Table {
    name: "`ready`",
    first: &[],
    keys: &[
        now("http", PATH, "a request that is answered"),
        ON,
        STATUS,
        now("notify", Form::Flag, "READY=1 over NOTIFY_SOCKET"),
        now("protocol", Form::Flag, "`ready` over AGENTD_WORKER_SOCKET"),
        now("log", Form::Text("a text that a line of output contains"), "a line of output"),
        now("command", COMMAND, "a command that ends with code 0"),
        now("listening", Form::Flag, "the worker waits on its sockets"),
        now("running", Form::Flag, "the program was executed"),
        now("timeout", DURATION, "longest wait for the proof; 60s without it"),
    ],
};

/// `live`.
pub(super) static LIVE: Table = Table {
    name: "`live`",
    first: &[],
    keys: &[
        now("http", PATH, "a request that is answered"),
        ON,
        STATUS,
        now("tcp", Form::Flag, "a connection that is accepted"),
        now("command", COMMAND, "a command that ends with code 0"),
        now("watchdog", DURATION, "longest silence between two WATCHDOG=1"),
        now("every", DURATION, "pause between probes; 10s without it"),
        now("timeout", DURATION, "longest wait for an answer; 5s without it"),
        now("failures", Form::Count(1, 1000), "how many in a row replace the worker; 3 without it"),
    ],
};

/// `refresh`.
pub(super) static REFRESH: Table = Table {
    name: "`refresh`",
    first: &[],
    keys: &[
        now("http", Form::Text("a method and a path, such as \"POST /admin/reindex\""), "a request to each worker"),
        ON,
        now("signal", Form::Text("a signal's name, such as \"SIGHUP\""), "a signal to each worker's main process"),
        now("notify", Form::Flag, "after the signal, RELOADING=1 and READY=1 over NOTIFY_SOCKET are awaited"),
        now("protocol", Form::Text("a word for what has changed"), "`refresh` over AGENTD_WORKER_SOCKET"),
        now("timeout", DURATION, "longest wait for one worker; 2m without it"),
        now(
            "watch",
            Form::Texts("a list of patterns, such as [\"knowledge/**\"]"),
            "files below `cwd`, or below a `source` that is a folder, whose change asks for it",
        ),
    ],
};

/// `restart`.
pub(super) static RESTART: Table = Table {
    name: "`restart`",
    first: &[],
    keys: &[
        now(
            "policy",
            Form::Word(&[word("always"), word("on-failure"), word("never")]),
            "which exits are followed by a start",
        ),
        now(
            "backoff",
            Form::Text("a range of durations such as \"100ms..30s\""),
            "first and longest wait before a restart",
        ),
        now("max", Form::Text("a rate such as \"10 in 5m\""), "more restarts than this park the worker as failed"),
    ],
};

/// `stop`.
pub(super) static STOP: Table = Table {
    name: "`stop`",
    first: &[],
    keys: &[
        now("signal", Form::Text("a signal such as \"SIGTERM\""), "the signal that asks a worker to end"),
        now(
            "drain",
            Form::Word(&[word("connections"), word("signal")]),
            "send it when the worker has no connections left, or at once when its queue is empty",
        ),
        now(
            "message",
            Form::Flag,
            "with `ipc`: the message \"shutdown\" first, and the signal when half of the time to end is over",
        ),
        now("timeout", DURATION, "longest wait from the signal to the exit"),
    ],
};

/// `grace`.
pub(super) static GRACE: Table = Table {
    name: "`grace`",
    first: &[],
    keys: &[
        now("target", Form::Fraction(0.0, 1.0), "wanted probability that nothing is cut"),
        now("default", DURATION, "how long a drain may take while nothing has been observed; 5m without it"),
        now("min", DURATION, "never less"),
        now("max", DURATION, "never more"),
        now(
            "on_deadline",
            Form::Word(&[word("checkpoint"), word("extend"), word("kill")]),
            "tasks at the end of the grace: hand over from the last checkpoint, wait while they get on, or cut",
        ),
    ],
};

/// `reload`.
pub(super) static RELOAD: Table = Table {
    name: "`reload`",
    first: &[],
    keys: &[
        now(
            "strategy",
            Form::Word(&[word("rolling"), later_word("canary", ""), later_word("blue-green", "")]),
            "how workers are replaced",
        ),
        now("max_surge", Form::Count(0, 1024), "how many workers may run beyond `workers`"),
        now("max_unavailable", Form::Count(0, 1024), "how many of `workers` may be missing"),
        now("settle", DURATION, "how long a new worker is watched before the old one is told to end"),
    ],
};

/// `upgrade`.
pub(super) static UPGRADE: Table = Table {
    name: "`upgrade`",
    first: &[],
    keys: &[
        now(
            "strategy",
            Form::Word(&[word("rolling"), word("blue-green"), word("canary"), word("recreate")]),
            "by which road; rolling without it",
        ),
        now(
            "steps",
            Form::Counts("a list of rising percents that ends with 100, such as [10, 25, 50, 100]", 1, 100),
            "percent of new connections at each step of a canary",
        ),
        now("dwell", DURATION, "least time at each step; 10m without it"),
        now("stability", DURATION, "how long the old generation stays at hand after the last step; 15m without it"),
        now(
            "min_uptime",
            DURATION,
            "rolling: how long a new worker is watched before the old one ends; 10s without it",
        ),
        now(
            "judged_by",
            Form::Word(&[word("gates"), word("time")]),
            "what lets a canary take its next step: enough good tasks, or time alone",
        ),
    ],
};

/// `tasks`.
pub(super) static TASKS: Table = Table {
    name: "`tasks`",
    first: &[],
    keys: &[
        now("lease", DURATION, "how long a worker may keep silent about a task before another gets it; 30s without it"),
        now(
            "state_version",
            Form::Count(0, 1_000_000),
            "version of the checkpoints that it writes; it is given none that is newer. A release's own wins",
        ),
        now("max_open", Form::Count(1, 10_000_000), "how many tasks may be open; 100000 without it"),
        now("keep", Form::Count(0, 100_000_000), "how many tasks that are over are kept; 100000 without it"),
        now("keep_for", DURATION, "for how long; 7d without it"),
        now("keep_bytes", SIZE, "bytes of large payloads that are kept with them; 1G without it"),
        now(
            "effects",
            Form::Map(
                "a table of \"retry\", \"skip\" or \"ask\" by kind of effect",
                &Form::Word(&[word("retry"), word("skip"), word("ask")]),
            ),
            "what is done about an effect that was begun and never ended; ask without it, retry for model and read",
        ),
    ],
};

/// `releases`.
pub(super) static RELEASES: Table = Table {
    name: "`releases`",
    first: &[],
    keys: &[
        now(
            "keep",
            Form::Count(1, 1000),
            "how many stay, beside those that run or could be gone back to; 5 without it",
        ),
        now("max_size", SIZE, "largest size of what one is cut from; 4G without it"),
        now("max_files", Form::Count(1, 10_000_000), "most files and folders in it; 250000 without it"),
        now("timeout", DURATION, "longest cut of one, with its build; 30m without it"),
    ],
};

const PARTS: Form =
    Form::Texts("a list of patterns of files and names of variables, such as [\"prompts/**\", \"MODEL\"]");

/// `changes`.
pub(super) static CHANGES: Table = Table {
    name: "`changes`",
    first: &[],
    keys: &[
        now("model", PARTS, "which model it asks"),
        now("prompt", PARTS, "what it says to its model"),
        now("core", PARTS, "the loop that drives its tasks"),
        now("knowledge", PARTS, "what it knows and reads again without a restart"),
    ],
};

/// A release's `skill.toml` or `agent.toml`.
pub(super) static MANIFEST: Table = Table {
    name: "a manifest",
    first: &[],
    keys: &[
        now("name", Form::Text("a name"), "the app that it is a release of"),
        now("version", Form::Text("a version such as \"1.4.0\""), "its version"),
        now(
            "kind",
            Form::Word(&[
                word("service"),
                word("worker"),
                later_word("mcp", "run it as a \"service\" with a socket of its own"),
            ]),
            "how agents call it, if it is a skill",
        ),
        now("description", Form::Text("a text"), "what it is for, for people"),
        now("command", COMMAND, "the program and its arguments, where the configuration names none"),
        now("build", Form::Table(&BUILD), "what makes it ready to run, once"),
        now("state_version", Form::Count(0, u32::MAX), "the version of its checkpoints or of the state that it keeps"),
        later("permissions", TABLE, "what it may do", "it may do what its user may"),
        now(
            "check",
            COMMAND,
            "is shown copies of open checkpoints before a cut-over and names those that it cannot read",
        ),
    ],
};

/// `build` of a manifest.
static BUILD: Table = Table {
    name: "`build`",
    first: &[],
    keys: &[
        now("command", COMMAND, "run once in the release's folder"),
        now("timeout", DURATION, "longest run; 10m without it"),
        now("env", Form::Map("a table of texts", &Form::Text("a text")), "environment variables"),
    ],
};

/// `gates`.
pub(super) static GATES: Table = Table {
    name: "`gates`",
    first: &[],
    keys: &[
        now(
            "eval",
            COMMAND,
            "a command that looks at the new workers before each step, when rolling before the first old one goes; code 0 lets them pass",
        ),
        now("eval_timeout", DURATION, "longest run of it; 5m without it"),
        now("error_rate", SHARE, "a share of failed tasks that is always allowed; 1% without it"),
        now("latency", SHARE, "how much longer tasks may take; 10% without it"),
        now("tokens", SHARE, "how many more tokens they may take; 10% without it"),
        now("cost", SHARE, "how much more they may cost; 10% without it"),
        now("tool_calls", SHARE, "how many more tools they may call; 10% without it"),
        now("steps", SHARE, "how many more steps they may take; 10% without it"),
        now("context", SHARE, "how much more of the context window they may use; 10% without it"),
        now(
            "quality",
            Form::Either(&[Form::Fraction(0.0, 1.0), Form::Text("\"off\"")]),
            "how much their mean score, from 0 to 1, may fall; 0.03 without it",
        ),
        now("n_min", Form::Count(1, 1_000_000), "fewest tasks of a step before the next; 30 without it"),
        now("latency_max", DURATION, "one task that takes longer takes the deployment back"),
        now("cost_max", Form::Fraction(0.0, 1_000_000.0), "one task that costs more, in US dollars, takes it back"),
    ],
};

/// `limits`.
pub(super) static LIMITS: Table = Table {
    name: "`limits`",
    first: &[],
    keys: &[
        now("memory", SIZE, "memory of a worker with all its processes"),
        now("pids", Form::Count(1, 4_194_304), "its processes and threads"),
        now("cpu", Form::Text("a percentage such as \"150%\""), "its processor time; 100% is one processor"),
        now("files", Form::Count(1, 1_073_741_816), "open files of each process"),
        now("file_size", SIZE, "size of a file that a process writes"),
        now("cpu_time", DURATION, "processor time of each process, in whole seconds, after which SIGXCPU ends it"),
        now("core", SIZE, "size of a core file; \"0\" for none"),
        now("stack", SIZE, "stack of the main thread of each process"),
        now("address_space", SIZE, "address space of each process"),
        now("locked_memory", SIZE, "memory that each process may lock"),
    ],
};

/// `cron_reload`.
pub(super) static CRON: Table = Table {
    name: "`cron_reload`",
    first: &[],
    keys: &[
        now("at", Form::Text("a schedule such as \"0 4 * * *\""), "minute, hour, day of month, month, day of week"),
        now("tz", Form::Text("a time zone such as \"Europe/Berlin\""), "whose clock counts; the machine's without it"),
    ],
};

/// `log`.
pub(super) static LOG: Table = Table {
    name: "`log`",
    first: &[],
    keys: &[
        now(
            "sink",
            Form::Word(&[word("fifo"), word("file"), word("journald"), word("none")]),
            "through the daemon to a file, straight to a file, through the daemon to journald, or nowhere",
        ),
        now("max_size", SIZE, "size after which a file is put aside"),
        now("max_age", DURATION, "age of its first line after which a file is put aside"),
        now("compress", Form::Flag, "whether what is put aside is packed (zstd); true"),
        now("keep", Form::Count(0, 10_000), "how many files put aside are kept of each stream"),
        now("keep_for", DURATION, "how long after its last line a file put aside is kept"),
        now("keep_bytes", SIZE, "how much the app's logs may take on the disk; what was put aside first goes first"),
        now("format", Form::Word(&[word("text"), later_word("json", "")]), "how lines are kept"),
    ],
};

/// One of `hooks`.
pub(super) static HOOK: Table = Table {
    name: "a hook",
    first: &[],
    keys: &[
        now(
            "on",
            Form::Either(&[
                Form::Word(&OCCASIONS),
                Form::Texts("a list of what happens, such as [\"crash\", \"park\"]"),
            ]),
            "what has to happen; a deployment waits for before_deployment and before_stage, and goes back if they fail",
        ),
        now("command", COMMAND, "is given the event as JSON on its standard input, and as AGENTD_EVENT_*"),
        now("timeout", DURATION, "how long it may take before it and what it started is killed; \"30s\""),
        now(
            "rate",
            Form::Text("a rate such as \"10 in 1h\""),
            "how often it runs at most, for each app, unless it is awaited; \"10 in 1h\"",
        ),
    ],
};

/// What a hook can wait for.
pub(super) static OCCASIONS: [Word; 14] = [
    word("crash"),
    word("park"),
    word("unhealthy"),
    word("memory"),
    word("before_deployment"),
    word("before_stage"),
    word("after_stage"),
    word("deployed"),
    word("reload"),
    word("rollback"),
    word("refresh_failed"),
    word("degraded"),
    word("recovered"),
    word("logs"),
];
