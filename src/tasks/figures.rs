//! The figures that a worker tells with a task's end: kept with the task, and what gates are fed with.

use std::time::Duration;

use agentd_core::gate::panel;
use agentd_core::task::{End, Fence, Loss};
use agentd_protocol::worker;
use serde::{Deserialize, Serialize};

/// Figures of one task. What was not told is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Figures {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokens_in: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokens_out: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cost_usd: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tool_calls: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    steps: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ctx_used: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ctx_max: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quality: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttft_ms: Option<u64>,
}

impl Figures {
    pub(super) fn of(end: &worker::End<'_>) -> Self {
        Self {
            tokens_in: end.tokens_in,
            tokens_out: end.tokens_out,
            cost_usd: end.cost_usd,
            tool_calls: end.tool_calls,
            steps: end.steps,
            ctx_used: end.ctx_used,
            ctx_max: end.ctx_max,
            quality: end.quality,
            ttft_ms: end.ttft_ms,
        }
    }

    /// None when none was told.
    pub(super) fn to_json(&self) -> Option<String> {
        // Plain numbers can be written as JSON.
        serde_json::to_string(self).ok().filter(|text| text != "{}")
    }

    /// What gates see of a task that ended so.
    pub(super) fn end(&self, bad: bool, ran: Duration, fence: Fence) -> panel::End {
        let number = |value: Option<u64>| value.map(|value| value as f64);
        let tokens = match (self.tokens_in, self.tokens_out) {
            (None, None) => None,
            (read, written) => number(Some(read.unwrap_or(0).saturating_add(written.unwrap_or(0)))),
        };
        panel::End {
            bad,
            latency: (fence == Fence::FIRST).then_some(ran.as_secs_f64()),
            tokens,
            cost: self.cost_usd,
            tool_calls: number(self.tool_calls),
            steps: number(self.steps),
            context: number(self.ctx_used).zip(number(self.ctx_max)).filter(|(_, max)| *max > 0.0).map(|(u, m)| u / m),
            quality: self.quality,
        }
    }
}

/// Whether a task that ended so counts against its version; none where it says nothing of it.
pub(super) fn is_bad(end: &End) -> Option<bool> {
    match end {
        End::Ok => Some(false),
        End::Error | End::Lost(Loss::Crashed | Loss::Silent) => Some(true),
        // Somebody wanted it.
        End::Cancelled | End::Discarded | End::Lost(Loss::Cut) => None,
    }
}
