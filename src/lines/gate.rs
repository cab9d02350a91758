//! `agentd gate`: the statistic of the gates by itself, in lines of JSON, for checking it from outside.
//!
//! ```text
//! {"gate":"binary|numeric|mean","alpha":0.00625,"floor":0.01,"tol":0.1,"margin":0.03,"n_min":30}   configures and resets
//! {"baseline":[...]}     what the old version did: 0 and 1 (bad), numbers, or scores; at least 50
//! {"stage":true}         a stage begins
//! {"x":1}                an observation; answered {"n":17,"log_e":1.9,"verdict":"too_few|promote|hold|rollback"}
//! ```
//! What is left out of a configuration has the value shown. Only `x` is answered, and every line that cannot be taken in
//! by `{"error":"line N: ..."}`. A baseline that comes after a stage's first observation waits for the next stage. Empty
//! lines are passed over.

use std::io::Write;
use std::process::ExitCode;

use agentd_core::gate::{ALPHA, Gate, GateError, Measure, Settings, Verdict};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Answers;

/// Why a line was not taken in.
#[derive(Debug, Error)]
enum LineError {
    #[error("{0}")]
    Json(serde_json::Error),
    #[error("a line has exactly one of gate, baseline, stage and x")]
    Which,
    #[error("stage is begun by true, not false")]
    Stage,
    #[error("a setting stands without gate")]
    Setting,
    #[error("no gate is configured yet: begin with {{\"gate\":\"binary\"}}, \"numeric\" or \"mean\"")]
    NoGate,
    #[error("{0}")]
    Gate(#[from] GateError),
    #[error("the line is over {} bytes", super::LINE_MAX)]
    TooLong,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Binary,
    Numeric,
    Mean,
}

/// A line. Settings belong to `gate`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    gate: Option<Kind>,
    alpha: Option<f64>,
    floor: Option<f64>,
    tol: Option<f64>,
    margin: Option<f64>,
    n_min: Option<u64>,
    baseline: Option<Vec<f64>>,
    stage: Option<bool>,
    x: Option<f64>,
}

#[derive(Serialize)]
struct Reply {
    n: u64,
    log_e: f64,
    verdict: Verdict,
}

#[derive(Serialize)]
struct Refusal {
    error: String,
}

#[derive(Default)]
struct Gates {
    line: u64,
    gate: Option<Gate>,
}

/// Runs the program on stdin and stdout.
#[must_use]
pub fn run() -> ExitCode {
    super::serve(&mut Gates::default())
}

impl Answers for Gates {
    fn answer(&mut self, line: &[u8], reply: &mut Vec<u8>) {
        self.line += 1;
        if line.is_empty() {
            return;
        }
        let answer = serde_json::from_slice(line).map_err(LineError::Json).and_then(|line| self.take(line));
        self.tell(answer, reply);
    }

    fn too_long(&mut self, reply: &mut Vec<u8>) {
        self.line += 1;
        self.tell(Err(LineError::TooLong), reply);
    }
}

impl Gates {
    fn tell(&self, answer: Result<Option<Reply>, LineError>, reply: &mut Vec<u8>) {
        let written = match answer {
            Ok(None) => return,
            Ok(Some(answer)) => serde_json::to_writer(&mut *reply, &answer),
            Err(error) => {
                serde_json::to_writer(&mut *reply, &Refusal { error: format!("line {}: {error}", self.line) })
            }
        };
        written
            .map_err(std::io::Error::from)
            .and_then(|()| reply.write_all(b"\n"))
            .expect("a vector takes every write");
    }

    fn take(&mut self, line: Line) -> Result<Option<Reply>, LineError> {
        let Line { gate, alpha, floor, tol, margin, n_min, baseline, stage, x } = line;
        let set = [alpha, floor, tol, margin].iter().any(Option::is_some) || n_min.is_some();
        if set && gate.is_none() {
            return Err(LineError::Setting);
        }
        match (gate, baseline, stage, x) {
            (Some(kind), None, None, None) => {
                let measure = match kind {
                    Kind::Binary => Measure::Binary { floor: floor.unwrap_or(0.01) },
                    Kind::Numeric => Measure::Numeric { tol: tol.unwrap_or(0.1) },
                    Kind::Mean => Measure::Mean { margin: margin.unwrap_or(0.03) },
                };
                let settings = Settings { measure, alpha: alpha.unwrap_or(ALPHA), n_min: n_min.unwrap_or(30) };
                self.gate = Some(Gate::new(settings)?);
                Ok(None)
            }
            (None, Some(values), None, None) => {
                self.gate.as_mut().ok_or(LineError::NoGate)?.baseline(&values)?;
                Ok(None)
            }
            (None, None, Some(begins), None) => {
                let gate = self.gate.as_mut().ok_or(LineError::NoGate)?;
                if !begins {
                    return Err(LineError::Stage);
                }
                gate.begin_stage();
                Ok(None)
            }
            (None, None, None, Some(x)) => {
                let reading = self.gate.as_mut().ok_or(LineError::NoGate)?.observe(x)?;
                Ok(Some(Reply { n: reading.n, log_e: reading.log_e, verdict: reading.verdict }))
            }
            (None, None, None, None) | (Some(_) | None, ..) => Err(LineError::Which),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(gates: &mut Gates, lines: &[&str]) -> String {
        let mut reply = Vec::new();
        lines.iter().for_each(|line| gates.answer(line.as_bytes(), &mut reply));
        String::from_utf8(reply).expect("replies are text")
    }

    #[test]
    fn an_observation_is_answered_with_its_evidence_and_verdict() {
        let mut gates = Gates::default();
        let baseline = format!("{{\"baseline\":{:?}}}", [0; 100]);
        assert_eq!(ask(&mut gates, &["{\"gate\":\"binary\"}", &baseline, "", "{\"stage\":true}"]), "");
        let first = ask(&mut gates, &["{\"x\":0}"]);
        assert!(
            first.starts_with("{\"n\":1,\"log_e\":-0.0") && first.ends_with("\"verdict\":\"too_few\"}\n"),
            "{first}"
        );
        let bad = ask(&mut gates, &["{\"x\":1}"; 5]);
        assert!(bad.lines().last().is_some_and(|line| line.ends_with("\"verdict\":\"rollback\"}")), "{bad}");
        let mean =
            ["{\"gate\":\"mean\",\"n_min\":2,\"margin\":0.1}", "{\"baseline\":[0.5]}", "{\"x\":0.5}", "{\"x\":0.5}"];
        assert!(
            ask(&mut gates, &mean).ends_with("{\"n\":2,\"log_e\":0.0,\"verdict\":\"too_few\"}\n"),
            "no baseline, no pass"
        );
    }

    #[test]
    fn a_malformed_line_gets_an_error_with_its_number_and_nothing_changes() {
        let mut gates = Gates::default();
        assert!(ask(&mut gates, &["{\"x\":1}"]).contains("line 1: no gate is configured yet"));
        ask(&mut gates, &["{\"gate\":\"binary\"}", "{\"x\":1}"]);
        for (line, why) in [
            ("{", "EOF"),
            ("[]", "invalid length"),
            ("{}", "exactly one of"),
            ("{\"x\":1,\"stage\":true}", "exactly one of"),
            ("{\"gate\":\"binary\",\"x\":1}", "exactly one of"),
            ("{\"gate\":\"median\"}", "unknown variant"),
            ("{\"y\":1}", "unknown field"),
            ("{\"alpha\":0.1}", "a setting stands without gate"),
            ("{\"stage\":false}", "begun by true"),
            ("{\"gate\":\"mean\",\"alpha\":2}", "alpha must lie between 0 and 1"),
            ("{\"x\":0.5}", "takes 0 (good) and 1 (bad)"),
            ("{\"baseline\":[0,1,2]}", "takes 0 (good) and 1 (bad)"),
            ("{\"x\":\"1\"}", "invalid type"),
        ] {
            let reply = ask(&mut gates, &[line]);
            assert!(reply.starts_with("{\"error\":\"line ") && reply.contains(why), "{line}: {reply}");
        }
        assert!(ask(&mut gates, &["{\"x\":0}"]).starts_with("{\"n\":2,"), "the gate is as it was");
    }
}
