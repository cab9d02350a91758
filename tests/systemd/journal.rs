//! What goes to a real journald: workers' lines with fields, and the daemon's own words with priorities.

use serde_json::Value;

use crate::service::Service;
use crate::with_either_systemd;

with_either_systemd! {
    lines_of_workers_are_entries_with_fields_and_agentctl_says_how_to_read_them;
    a_journald_that_is_gone_costs_lines_which_are_counted_and_no_worker;
    the_daemons_own_words_carry_their_priority;
}

/// Prints a number every 50 ms, and says more than a datagram holds at first.
const TALKER: &str = r#"
[agent.talker]
command = ["sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x; echo; echo oh >&2; i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"]
cwd = "/tmp"
log = { sink = "journald" }
"#;

/// The entries of the talker that `filter` lets through, oldest first.
fn entries(service: &Service, filter: &[&str]) -> Vec<Value> {
    let words = ["journalctl", "--no-pager", "--output=json", "--all", "AGENTD_APP=talker"];
    let text = service.machine.ok(&[&words[..], filter].concat());
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn numbers(service: &Service) -> Vec<u64> {
    let entries = entries(service, &["AGENTD_STREAM=stdout"]);
    entries.iter().filter_map(|entry| entry["MESSAGE"].as_str()?.parse().ok()).collect()
}

fn lines_of_workers_are_entries_with_fields_and_agentctl_says_how_to_read_them(service: Service) {
    let service = service.with_fleet();
    service.start("/etc/agentd/talker.toml", TALKER);
    let count = |least: usize| (numbers(&service).len() > least).then_some(());
    service.until("a number in the journal", || count(3));
    let said = entries(&service, &["AGENTD_STREAM=stderr"]);
    let field = |name: &str| said[0][name].as_str().unwrap_or_default().to_owned();
    assert_eq!((field("MESSAGE"), field("SYSLOG_IDENTIFIER")), ("oh".to_owned(), "talker".to_owned()));
    assert_eq!((field("AGENTD_WORKER"), field("AGENTD_RELEASE")), ("talker.0.1".to_owned(), "g1".to_owned()));
    assert_eq!((field("AGENTD_GENERATION"), field("_SYSTEMD_UNIT")), ("1".to_owned(), "agentd.service".to_owned()));
    let lengths: usize = entries(&service, &["AGENTD_STREAM=stdout"])
        .iter()
        .filter_map(|entry| entry["MESSAGE"].as_str().filter(|text| text.starts_with('x')).map(str::len))
        .sum();
    assert_eq!(lengths, 300_000, "a line that is longer than a datagram");

    // The daemon is killed: what is printed meanwhile is said by the next, which gives at most the last lines again.
    let before = service.main_pid();
    service.machine.ok(&["kill", "-KILL", &before.to_string()]);
    service.await_another_daemon(before);
    let so_far = numbers(&service).len();
    service.until("more numbers", || count(so_far + 3));
    let mut seen = numbers(&service);
    seen.dedup();
    assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "lines are missing: {seen:?}");

    service.machine.ok(&["agentctl", "reload", "talker"]);
    service.until("an entry of the second generation", || {
        (!entries(&service, &["AGENTD_GENERATION=2"]).is_empty()).then_some(())
    });
    let shown = service.machine.run(&["agentctl", "logs", "-f", "talker"]);
    assert!(shown.code == Some(0) && shown.stdout.is_empty(), "{shown:?}");
    let hint = shown.stderr.split_once("journalctl ").expect("a command").1.trim();
    let words: Vec<_> = hint.split_whitespace().collect();
    let read = service.machine.ok(&[&["journalctl", "--no-pager", "-o", "cat"], &words[..]].concat());
    assert!(read.lines().any(|line| line == "oh"), "{hint}: {read}");
}

fn a_journald_that_is_gone_costs_lines_which_are_counted_and_no_worker(service: Service) {
    let service = service.with_fleet();
    // It waits after its first lines: what journald was given it has read before it goes, every later line is ours to count.
    let waits =
        TALKER.replace("sleep 0.05; done", "[ $i -ne 5 ] || until [ -e go ]; do sleep 0.05; done; sleep 0.05; done");
    assert_ne!(waits, TALKER);
    service.start("/etc/agentd/talker.toml", &waits);
    service.until("its first numbers in the journal", || (numbers(&service).len() == 5).then_some(()));
    let before = service.ready_workers();
    let units = ["systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket"];
    service.machine.ok(&[&["systemctl", "stop"], &units[..]].concat());
    service.machine.ok(&["rm", "-f", "/run/systemd/journal/socket"]);
    service.machine.ok(&["touch", "/tmp/go"]);
    service.until("a note", || {
        let status = service.machine.ok(&["agentctl", "daemon", "status"]);
        status.contains("log lines are being dropped: journald/talker/0.out.log").then_some(())
    });
    assert_eq!(service.ready_workers(), before, "they go on");
    service.machine.ok(&[&["systemctl", "start"], &units[..]].concat());
    let told = service.until("words about it", || {
        let entries = entries(&service, &["PRIORITY=4"]);
        entries.iter().find_map(|entry| Some(entry["MESSAGE"].as_str()?.to_owned()))
    });
    assert!(told.starts_with("[agentd] ") && told.contains(" lines dropped ("), "{told}");
    let dropped: usize = told.split_whitespace().nth(1).and_then(|count| count.parse().ok()).expect("a count");
    let after = service.until("numbers after the gap", || numbers(&service).into_iter().find(|&number| number > 4));
    assert_eq!(usize::try_from(after - 5).ok(), Some(dropped), "{told}: 4 is followed by {after}");
    assert_eq!(service.ready_workers(), before, "nobody was stopped");
}

fn the_daemons_own_words_carry_their_priority(service: Service) {
    let service = service.with_fleet();
    service.machine.write("/etc/agentd/daemon.toml", "[daemon]\nroles = { view = [\"nobody-knows-me\"] }\n");
    service.machine.ok(&["systemctl", "restart", "agentd"]);
    let warned = service.machine.ok(&["journalctl", "--no-pager", "-o", "cat", "-u", "agentd", "-p", "warning"]);
    assert!(warned.contains("nobody-knows-me") && !warned.contains("<4>"), "{warned}");
    let all = service.machine.ok(&["journalctl", "--no-pager", "-o", "cat", "-u", "agentd", "-p", "info"]);
    assert!(all.lines().count() > warned.lines().count(), "{all}");
}
