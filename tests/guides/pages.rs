//! Each page, with what its reader would have installed put in place.

use crate::guide::{Followed, Place, follow};
use crate::place::Look;

/// An app that says who it is and streams, for pages that are about what stands before it.
const APP: &str = r#"import asyncio, os
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
app = FastAPI()
@app.get("/health")
def health():
    return {"well": True}
@app.get("/")
def who():
    return {"from": os.environ["AGENTD_WORKER"]}
@app.get("/answer")
async def answer():
    async def words():
        for number in range(10):
            yield f"data: word {number}\n\n"
            await asyncio.sleep(0.2)
    return StreamingResponse(words(), media_type="text/event-stream")
"#;

/// A page and its name.
macro_rules! page {
    ($name:literal) => {
        ($name, include_str!(concat!("../../docs/guides/", $name)))
    };
}

/// Follows a page to its end; at least so many blocks of commands and of text were in it.
fn walk(look: &mut Look, (name, page): (&str, &str), typed: usize, compared: usize) {
    let followed: Followed = follow(look, name, page, |_, block| {
        assert_eq!(block.info, "sh", "{name}, line {}: what is {:?}?", block.line, block.info);
    });
    assert!(followed.typed >= typed && followed.compared >= compared, "{name}: {followed:?}");
}

/// Behind the proxies: the app in the place of the reader's, and Python with FastAPI first on `PATH`.
fn with_app(look: &mut Look) {
    let python = look.prepared("venv/bin/python3");
    look.write("/usr/local/bin/python3", &format!("#!/bin/sh\nexec {} \"$@\"\n", python.display()));
    look.ok("chmod 755 /usr/local/bin/python3");
    look.write("/srv/support/main.py", APP);
}

#[test]
fn the_guide_for_fastapi() {
    let Some(mut look) = Look::fresh() else { return };
    look.link("/srv/support/.venv", "venv");
    walk(&mut look, page!("fastapi.md"), 5, 3);
}

#[test]
fn the_guide_for_express() {
    let Some(mut look) = Look::fresh() else { return };
    look.link("/srv/search/node_modules", "node/node_modules");
    walk(&mut look, page!("express.md"), 4, 2);
}

#[test]
fn the_guide_for_rust() {
    let page = page!("rust.md");
    let shown = crate::blocks::blocks(page.1);
    let block = |info: &str| shown.iter().find(|block| block.info.starts_with(info)).expect("the page shows it");
    // What is built with the workspace is what the page shows.
    let built = include_str!("../../testkit/apps/axum/src/bin/agentd-sample-guide.rs");
    assert_eq!(block("rust ").text, built);
    let sample = include_str!("../../testkit/apps/axum/Cargo.toml");
    for line in block("toml /srv/support/Cargo.toml").text.lines().filter(|line| line.starts_with("axum")) {
        let version = line.split('"').nth(1).expect("a version");
        assert!(sample.contains(&format!("axum = {{ version = \"{version}\"")), "{line}");
    }
    let Some(mut look) = Look::fresh() else { return };
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_agentd")).with_file_name("agentd-sample-guide");
    assert!(program.is_file(), "build it first: cargo build --workspace");
    look.link_to("/srv/support/target/release/support", &program);
    walk(&mut look, page, 2, 1);
}

#[test]
fn the_guide_for_workers_by_the_clock() {
    let Some(mut look) = Look::fresh() else { return };
    walk(&mut look, page!("cron.md"), 5, 4);
}

#[test]
fn the_guide_for_nginx() {
    let Some(mut look) = Look::fresh() else { return };
    look.prepared("proxies/root");
    with_app(&mut look);
    // What the package does when it is installed.
    look.ok("mkdir -p /var/lib/nginx /var/log/nginx && nginx");
    walk(&mut look, page!("nginx.md"), 4, 2);
}

#[test]
fn the_guide_for_caddy() {
    let Some(mut look) = Look::fresh() else { return };
    look.prepared("proxies/root");
    with_app(&mut look);
    look.ok("caddy start --config /etc/caddy/Caddyfile >/var/log/caddy.log 2>&1");
    walk(&mut look, page!("caddy.md"), 4, 2);
}

#[test]
fn the_guide_for_scripts() {
    let Some(mut look) = Look::fresh() else { return };
    walk(&mut look, page!("scripts.md"), 5, 3);
}

#[test]
fn the_guide_from_pm2() {
    let Some(mut look) = Look::fresh() else { return };
    look.link("/srv/api/node_modules", "node/node_modules");
    look.link("/usr/local/bin/pm2", "node/node_modules/pm2/bin/pm2");
    walk(&mut look, page!("from-pm2.md"), 4, 2);
}

#[test]
fn the_guide_from_supervisord() {
    let Some(mut look) = Look::fresh() else { return };
    look.link("/srv/support/.venv", "venv");
    walk(&mut look, page!("from-supervisord.md"), 3, 1);
}

#[test]
fn the_runbook() {
    let Some(mut look) = Look::fresh() else { return };
    walk(&mut look, page!("runbook.md"), 8, 1);
}

#[test]
fn every_guide_is_followed_by_a_test() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guides");
    let tests =
        [include_str!("pages.rs"), include_str!("../systemd/guide.rs"), include_str!("../sdk/guide.rs")].concat();
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name of letters");
        // A table of outcomes, each held by a test that it names.
        let table = name == "bad-days.md";
        assert!(table || tests.contains(&format!("{name}\"")), "docs/guides/{name} is followed by no test");
    }
}
