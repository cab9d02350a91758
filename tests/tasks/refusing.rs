//! What is wrong is refused with its code, changes nothing, and is nobody else's trouble.

use std::time::{Duration, Instant};

use agentd_protocol::control::TasksParams;
use agentd_testkit::e2e::Speaker;
use serde_json::json;

use super::{silent, speaker};

#[test]
fn each_wrong_word_about_a_task_has_its_code_and_no_effect() {
    let (daemon, token) = silent("");
    let mut worker = speaker(&daemon, &token);
    let begun = worker.ask(json!({"t":"task.begin","task":"a","kind":"chat","input":{"x":1}}));
    assert_eq!((&begun["ok"], &begun["fence"]), (&json!(true), &json!(1)), "{begun}");
    assert_eq!(
        worker.ask(json!({"t":"task.begin","task":"a","kind":"chat","input":{"x":1}}))["fence"],
        1,
        "sent again"
    );
    let own = |t: &str| json!({"t": t, "task": "a", "fence": 1});
    let with = |t: &str, more: serde_json::Value| {
        let mut request = own(t);
        request.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        request
    };
    let cases = [
        (json!({"t":"ckpt","task":"nobody's","fence":1,"step":1,"json":{}}), "unknown_task"),
        (json!({"t":"beat","tasks":[{"task":"nobody's","fence":1},{"task":"a","fence":1}]}), "unknown_task"),
        (json!({"t":"ckpt","task":"a","fence":7,"step":1,"json":{}}), "fenced"),
        (with("ckpt", json!({"step": 1})), "malformed"),
        (with("ckpt", json!({"step": 1, "json": 1, "data": "eA=="})), "malformed"),
        (with("ckpt", json!({"step": 1, "data": "no base64!"})), "malformed"),
        (with("effect.end", json!({"key": "never begun", "ok": true})), "unknown_effect"),
        (with("ckpt", json!({"step": u64::MAX, "json": 1})), "too_large"),
        (with("effect.begin", json!({"key": "k", "kind": "k", "compensate": "c".repeat(5000)})), "too_large"),
        (json!({"t":"task.begin","task":"x".repeat(129)}), "too_large"),
        (json!({"t":"task.begin","task":"b","kind":"k".repeat(65)}), "too_large"),
        (json!({"t":"task.begin","task":""}), "malformed"),
        (json!({"t":"task.launch"}), "malformed"),
        (json!({"t":"kv.put","ns":"n","items":[],"task":"a"}), "malformed"),
        (json!({"t":"hello","proto":"agentd/1","token":token}), "hello"),
    ];
    for (request, code) in cases {
        let last = code == "hello";
        let answer = worker.ask(request.clone());
        assert_eq!((&answer["ok"], &answer["err"]), (&json!(false), &json!(code)), "{request}: {answer}");
        if last {
            assert_eq!(worker.next(), None, "a second hello closes the connection");
        }
    }
    let mut worker = speaker(&daemon, &token);
    worker.send(b"no json at all\n");
    assert_eq!(worker.next().expect("an answer")["err"], "malformed");
    assert_eq!(worker.ask(with("task.end", json!({"outcome": "ok", "result": 5})))["ok"], true);
    assert_eq!(worker.ask(with("task.end", json!({"outcome": "ok", "result": 5})))["ok"], true, "sent again");
    assert_eq!(worker.ask(with("ckpt", json!({"step": 2, "json": {}})))["err"], "finished");
    let crossed = worker.ask(json!({"t":"beat","tasks":[{"task":"a","fence":1}]}));
    assert_eq!(crossed["ok"], true, "a beat that its task's end has overtaken: {crossed}");
}

#[test]
fn nobody_speaks_for_a_worker_without_its_token() {
    let (daemon, token) = silent("");
    let refused = |hello: serde_json::Value| {
        let mut stranger = Speaker::dial(&daemon.worker_socket());
        let answer = stranger.ask(hello);
        assert_eq!(stranger.next(), None, "and is closed");
        answer["err"].clone()
    };
    assert_eq!(refused(json!({"t":"hello","proto":"agentd/1","token":format!("{token}0")})), "token");
    assert_eq!(refused(json!({"t":"hello","proto":"agentd/1","token":token.replacen(['1', '2'], "9", 1)})), "token");
    assert_eq!(refused(json!({"t":"hello","proto":"agentd/0","token":token})), "version");
    assert_eq!(refused(json!({"t":"hello","proto":"pm2","token":token})), "version");
    assert_eq!(refused(json!({"t":"task.begin"})), "hello");
    let mut newer = Speaker::dial(&daemon.worker_socket());
    let welcome = newer.ask(json!({"t":"hello","proto":"agentd/9","token":token,"later":true}));
    assert_eq!((&welcome["ok"], &welcome["proto"]), (&json!(true), &json!("agentd/1")), "{welcome}");
    daemon.ctl_ok(&["stop", "silent"]);
    assert_eq!(refused(json!({"t":"hello","proto":"agentd/1","token":token})), "gone");
}

#[test]
fn a_line_that_is_too_long_is_told_so_and_one_that_just_fits_is_taken() {
    let (daemon, token) = silent("");
    let mut worker = speaker(&daemon, &token);
    assert_eq!(worker.ask(json!({"t":"task.begin","task":"a"}))["ok"], true);
    let large = "x".repeat(8 * 1024 * 1024 - 200);
    let kept = worker.ask(json!({"t":"ckpt","task":"a","fence":1,"step":1,"json":large}));
    assert_eq!(kept["ok"], true, "{:.200}", kept.to_string());
    worker.send(format!("{{\"t\":\"ckpt\",\"pad\":\"{}\"}}", "x".repeat(9 * 1024 * 1024)).as_bytes());
    assert_eq!(worker.next().expect("an answer")["err"], "too_large");
    assert_eq!(worker.next(), None, "nothing else can be read from it");
    let mut again = speaker(&daemon, &token);
    assert_eq!(again.ask(json!({"t":"task.end","task":"a","fence":1,"outcome":"ok"}))["ok"], true);
}

#[test]
fn a_flood_from_one_worker_is_read_slowly_and_others_are_served_meanwhile() {
    let (daemon, token) =
        silent("tasks = { max_open = 3000 }\ngrace = { default = \"1s\", min = \"100ms\", max = \"2s\" }");
    let mut flood = speaker(&daemon, &token);
    let mut lines = String::new();
    for n in 1..=5000 {
        lines.push_str(&format!("{{\"t\":\"task.begin\",\"n\":{n},\"task\":\"f{n:05}\"}}\n"));
    }
    flood.send(lines.as_bytes());
    let mut other = speaker(&daemon, &token);
    let asked = Instant::now();
    assert_eq!(other.ask(json!({"t":"kv.put","ns":"n","items":[{"key":"k","json":1}]}))["ok"], true);
    assert!(asked.elapsed() < Duration::from_secs(5), "served after {:?}", asked.elapsed());
    let mut refused = 0;
    for n in 1..=5000 {
        let answer = flood.next().expect("an answer for each");
        assert_eq!(answer["re"], n, "in order");
        if answer["err"] == "flood" {
            refused += 1;
        }
    }
    assert_eq!(refused, 2000, "those beyond what an app may have open");
    assert_eq!(
        daemon.request(TasksParams { limit: 10_000, ..TasksParams::default() }).expect("a list").tasks.len(),
        3000
    );
}

#[test]
fn a_worker_that_does_not_read_its_answers_is_asked_for_no_more_and_costs_bounded_memory() {
    let (daemon, token) = silent("");
    let mut lazy = speaker(&daemon, &token);
    let value = "x".repeat(1024 * 1024);
    assert_eq!(lazy.ask(json!({"t":"kv.put","ns":"n","items":[{"key":"k","json":value}]}))["ok"], true);
    let before = resident_kib(daemon.pid());
    let asked = 100_000..100_200;
    let lines: String =
        asked.clone().map(|n| format!("{}\n", json!({"t":"kv.get","n":n,"ns":"n","key":"k"}))).collect();
    lazy.send(lines.as_bytes());
    let mut other = speaker(&daemon, &token);
    for n in 0..20 {
        assert_eq!(other.ask(json!({"t":"task.begin","task":format!("t{n}")}))["ok"], true);
    }
    let grown = resident_kib(daemon.pid()).saturating_sub(before);
    assert!(grown < 80 * 1024, "200 MiB are asked for, {grown} KiB are held");
    for n in asked {
        assert_eq!(lazy.next().expect("it reads at last")["re"], n, "each is answered");
    }
    for n in 0..20 {
        assert_eq!(other.ask(json!({"t":"task.end","task":format!("t{n}"),"fence":1,"outcome":"ok"}))["ok"], true);
    }
}

#[test]
fn a_worker_has_a_bounded_number_of_connections() {
    let (daemon, token) = silent("");
    let held: Vec<Speaker> = (0..64).map(|_| speaker(&daemon, &token)).collect();
    let mut more = Speaker::dial(&daemon.worker_socket());
    let refused = more.ask(json!({"t":"hello","proto":"agentd/1","token":token}));
    assert_eq!((&refused["err"], more.next()), (&json!("flood"), None), "{refused}");
    drop(held);
    let deadline = Instant::now() + super::PATIENCE;
    loop {
        let mut again = Speaker::dial(&daemon.worker_socket());
        if again.ask(json!({"t":"hello","proto":"agentd/1","token":token}))["ok"] == true {
            break;
        }
        assert!(Instant::now() < deadline, "connections that are gone make room");
    }
}

/// What a process holds of memory.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel tells");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn the_small_store_keeps_what_it_is_given_in_the_order_of_its_keys() {
    let (daemon, token) = silent("");
    let mut worker = speaker(&daemon, &token);
    let items = json!([{"key":"b","json":{"n":1}},{"key":"a","data":"eHl6"},{"key":"c"}]);
    assert_eq!(worker.ask(json!({"t":"kv.put","ns":"n","items":items}))["err"], "malformed", "one has no value");
    assert_eq!(worker.ask(json!({"t":"kv.get","ns":"n","key":"b"}))["found"], false, "nothing of it is there");
    assert_eq!(worker.ask(json!({"t":"kv.put","ns":"null","items":[{"key":"c","json":null}]}))["put"], json!([true]));
    let null = worker.ask(json!({"t":"kv.get","ns":"null","key":"c"}));
    assert_eq!((&null["found"], null.get("json")), (&json!(true), Some(&json!(null))), "null is a value: {null}");
    let items = json!([{"key":"b","json":{"n":1}},{"key":"a","data":"eHl6"},{"key":"a/1","json":[]}]);
    assert_eq!(worker.ask(json!({"t":"kv.put","ns":"n","items":items}))["put"], json!([true, true, true]));
    let again = json!([{"key":"b","json":{"n":2},"if_absent":true},{"key":"b","json":{"n":1},"if_absent":true}]);
    assert_eq!(worker.ask(json!({"t":"kv.put","ns":"n","items":again}))["put"], json!([false, true]));
    assert_eq!(worker.ask(json!({"t":"kv.get","ns":"n","key":"a"}))["data"], "eHl6");
    assert_eq!(worker.ask(json!({"t":"kv.get","ns":"m","key":"a"}))["found"], false);
    let page = worker.ask(json!({"t":"kv.scan","ns":"n","prefix":"a"}));
    assert_eq!(page["items"], json!([{"key":"a","data":"eHl6"},{"key":"a/1","json":[]}]), "{page}");
    let last = worker.ask(json!({"t":"kv.scan","ns":"n","reverse":true,"limit":1,"keys_only":true}));
    assert_eq!((&last["items"], &last["more"]), (&json!([{"key":"b"}]), &json!(true)), "{last}");
    assert_eq!(worker.ask(json!({"t":"kv.del","ns":"n","prefix":"a"}))["deleted"], 2);
}
