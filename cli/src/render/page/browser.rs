//! The page in a real browser, on a phone's width, in light and dark.
//!
//! The page has no script, so it is looked at from a page around it, which holds it in a frame of 390 pixels and writes
//! down what it measures there. Its own rules for narrow screens hold by the frame's width.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::deployment::sample;
use super::page;

/// Longest wait for the browser, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A phone's width in pixels.
const WIDTH: u32 = 390;

/// What it is started with: it is to ask nobody for anything.
const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--enable-logging=stderr",
];

/// Measures the page in the frame; what it finds ends up as text in `#found`.
const MEASURE: &str = r#"
const frame = document.getElementById("frame");
frame.addEventListener("load", () => {
  const page = frame.contentDocument, root = page.documentElement;
  const box = (selector) => Array.from(page.querySelectorAll(selector), (element) => {
    const { left, right, width, height } = element.getBoundingClientRect();
    return { left, right, width, height };
  });
  const colour = (selector) => getComputedStyle(page.querySelector(selector));
  const found = {
    width: root.scrollWidth, inner: frame.contentWindow.innerWidth,
    requests: frame.contentWindow.performance.getEntriesByType("resource").map((entry) => entry.name),
    timeline: box("ol li"), curves: box("svg path[fill=none]"), all: box("body *"),
    text: page.body.innerText.length,
    background: colour("body").backgroundColor,
    contrast: Array.from(page.querySelectorAll("p,td,th,li span,b,time,h1,h2,pre,.badge"), (element) => {
      const style = getComputedStyle(element);
      let behind = element;
      while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)" && behind.parentElement)
        behind = behind.parentElement;
      return { of: element.className || element.tagName, text: element.textContent.slice(0, 30),
               front: style.color, back: getComputedStyle(behind).backgroundColor, shown: style.display !== "none" };
    }),
  };
  document.getElementById("found").textContent = JSON.stringify(found);
});
"#;

/// What a browser finds in the page, and what it complained of; none where there is no browser.
fn looked_at(dark: bool) -> Option<(Value, Vec<String>)> {
    let Some(browser) = browser() else {
        eprintln!("passed over: no chromium here; `tests/prepare` installs it as root");
        return None;
    };
    let folder = tempfile::tempdir().expect("there is room for a page");
    let file = folder.path().join("around.html");
    let page = page(&sample()).replace('&', "&amp;").replace('"', "&quot;");
    let around = format!(
        "<!doctype html><meta charset=utf-8><pre id=found></pre>\
         <iframe id=frame style=\"border:0;width:{WIDTH}px;height:844px\" srcdoc=\"{page}\"></iframe>\
         <script>{MEASURE}</script>"
    );
    std::fs::write(&file, around).expect("there is room for a page");
    let (dom, said) = run(&browser, dark, folder.path(), &file);
    let found = dom.split_once("<pre id=\"found\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let found = found.map(|(found, _)| found.trim()).filter(|found| !found.is_empty());
    let found = found.unwrap_or_else(|| panic!("the page was not looked at:\n{dom}\n{said}"));
    let found = found.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", " ").replace("&amp;", "&");
    let complaints = said.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
    Some((serde_json::from_str(&found).expect("it was written as JSON"), complaints))
}

fn browser() -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find_map(|name| path.split(':').map(|folder| Path::new(folder).join(name)).find(|file| file.is_file()));
    found.map(|file| file.display().to_string())
}

fn run(browser: &str, dark: bool, folder: &Path, file: &Path) -> (String, String) {
    let (dom, said) = (folder.join("dom"), folder.join("said"));
    let into = |path: &Path| std::fs::File::create(path).expect("there is room");
    let mut command = Command::new(browser);
    command.args(FLAGS).arg(format!("--user-data-dir={}", folder.join("profile").display()));
    if dark {
        command.arg("--blink-settings=preferredColorScheme=0");
    }
    command.args(["--virtual-time-budget=2000", "--dump-dom"]).arg(format!("file://{}", file.display()));
    let mut child = command
        .env("HOME", folder)
        .stdin(Stdio::null())
        .stdout(into(&dom))
        .stderr(into(&said))
        .spawn()
        .expect("the browser starts");
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("it is our child").is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("the browser did not end:\n{}", text(&said));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    (text(&dom), text(&said))
}

fn text(path: &Path) -> String {
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).expect("it was written");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Contrast of two colours as `rgb(r, g, b)`, by WCAG 2.2: 1 is none, from 4.5 on text is readable.
fn contrast(front: &str, back: &str) -> f64 {
    let luminance = |colour: &str| {
        let parts: Vec<f64> = colour
            .trim_start_matches(|c: char| !c.is_ascii_digit())
            .split(|c: char| !(c.is_ascii_digit() || c == '.'))
            .filter_map(|part| part.parse().ok())
            .collect();
        let linear = |part: f64| {
            let part = part / 255.0;
            if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(parts[0]) + 0.7152 * linear(parts[1]) + 0.0722 * linear(parts[2])
    };
    let (a, b) = (luminance(front), luminance(back));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn the_page_fits_a_phone_and_reads_in_light_and_dark_and_asks_for_nothing() {
    let mut backgrounds = Vec::new();
    for dark in [false, true] {
        let Some((found, complaints)) = looked_at(dark) else { return };
        assert_eq!(complaints, Vec::<String>::new(), "nothing is complained of");
        assert_eq!((&found["inner"], &found["width"]), (&WIDTH.into(), &WIDTH.into()), "nothing to scroll sideways");
        assert_eq!(found["requests"], serde_json::json!([]), "nothing is asked for");
        let boxes = |of: &str| found[of].as_array().expect("a list of boxes").clone();
        let number = |of: &Value, name: &str| of[name].as_f64().expect("a number");
        assert!(boxes("timeline").len() >= 5 && boxes("curves").len() == 2, "{found:#}");
        for shown in boxes("timeline").iter().chain(&boxes("curves")) {
            assert!(number(shown, "width") > 40.0 && number(shown, "height") > 10.0, "{shown}");
        }
        for any in boxes("all") {
            assert!(number(&any, "right") <= f64::from(WIDTH) + 0.5 && number(&any, "left") >= 0.0, "{any}");
        }
        for words in boxes("contrast").iter().filter(|words| words["shown"] == true) {
            let colour = |name: &str| words[name].as_str().expect("a colour").to_owned();
            let contrast = contrast(&colour("front"), &colour("back"));
            assert!(contrast >= 4.5, "dark: {dark}, {contrast:.1}: {words}");
        }
        backgrounds.push(found["background"].clone());
    }
    assert_ne!(backgrounds[0], backgrounds[1], "dark is another page than light");
}
