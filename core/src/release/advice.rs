//! By which road a change should go, and what becomes of the sessions: deploy.md's table.
//!
//! | what changes | road | sessions |
//! |---|---|---|
//! | model or prompt, major | blue-green | finish on the old version |
//! | model or prompt, minor | canary | mixed |
//! | stateless tool server | rolling | unseen |
//! | stateful or MCP skill | hot swap (rolling, until there is one) | unseen |
//! | agent process, skill code | rolling | tasks drain or hand over |
//! | core loop | blue-green | tasks resume on the new version |
//! | knowledge only | refresh: no restart at all | unseen |
//!
//! Where several rows fit, the most careful one decides: what can go wrong with any part can go wrong with the whole.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Leap;
use crate::rollout::Strategy;

/// A part of an app that a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// What it knows; read again without a restart.
    Knowledge,
    /// Anything that no other part claims: files, command, environment.
    Code,
    /// What it says to its model.
    Prompt,
    /// Which model it asks.
    Model,
    /// The loop that drives its tasks, or the shape of its checkpoints.
    Core,
}

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// An agent.
    Agent,
    /// A tool that keeps nothing between two calls.
    StatelessSkill,
    /// A tool that does.
    StatefulSkill,
    /// A tool that takes tasks.
    WorkerSkill,
}

/// A road that is advised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Road {
    /// A deployment by this strategy.
    Deploy(Strategy),
    /// Another process behind the same session.
    HotSwap,
    /// No new process at all.
    Refresh,
    /// Nothing changed.
    Stay,
}

/// An advice with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// By which road.
    pub road: Road,
    /// Why, as the end of a sentence that begins with the road.
    pub because: &'static str,
    /// What becomes of sessions and tasks, in one sentence.
    pub sessions: &'static str,
}

/// The advice for a change of these parts.
#[must_use]
pub fn advise(whose: Whose, parts: &BTreeSet<Part>, leap: Leap) -> Advice {
    let spoken = parts.contains(&Part::Model) || parts.contains(&Part::Prompt);
    let deploy = Road::Deploy;
    if parts.is_empty() {
        return Advice { road: Road::Stay, because: "nothing differs", sessions: "nothing happens to them" };
    }
    if parts.iter().all(|part| *part == Part::Knowledge) {
        return Advice {
            road: Road::Refresh,
            because: "only what it knows changes, which `agentctl refresh` renews without a restart",
            sessions: "sessions and tasks do not notice",
        };
    }
    if parts.contains(&Part::Core) {
        return Advice {
            road: deploy(Strategy::BlueGreen),
            because: "the core loop or the shape of its checkpoints changes: tasks should not meet both versions",
            sessions: "tasks in flight resume on the new version from their checkpoints",
        };
    }
    match (spoken, leap) {
        (true, Leap::Major) => {
            return Advice {
                road: deploy(Strategy::BlueGreen),
                because: "model or prompt change in a major version: a session should see one of them only",
                sessions: "sessions in flight finish on the old version",
            };
        }
        (true, Leap::Minor) => {
            return Advice {
                road: deploy(Strategy::Canary),
                because: "model or prompt change in a minor version: whether it is better is seen by its figures only",
                sessions: "sessions in flight stay where they are, new ones are shared out by the steps",
            };
        }
        (false, Leap::Major | Leap::Minor) => {}
    }
    match whose {
        Whose::StatelessSkill => Advice {
            road: deploy(Strategy::Rolling),
            because: "it keeps nothing between two calls",
            sessions: "sessions do not notice",
        },
        Whose::StatefulSkill => Advice {
            road: Road::HotSwap,
            because: "it keeps state between calls; until skills can be swapped under their session, \
                      a rolling upgrade lets each worker finish what it has",
            sessions: "calls in flight finish on the old version; its state has to be outside of its process",
        },
        Whose::Agent | Whose::WorkerSkill => Advice {
            road: deploy(Strategy::Rolling),
            because: "its code changes, and nothing that it says or remembers",
            sessions: "tasks in flight finish on the old version, or go on in the new one from their checkpoints",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn road(whose: Whose, parts: &[Part], leap: Leap) -> Road {
        advise(whose, &parts.iter().copied().collect(), leap).road
    }

    #[test]
    fn every_row_of_the_table_has_its_road() {
        use Strategy::{BlueGreen, Canary, Rolling};
        for (whose, parts, leap, expected) in [
            (Whose::Agent, &[Part::Model][..], Leap::Major, Road::Deploy(BlueGreen)),
            (Whose::Agent, &[Part::Prompt], Leap::Minor, Road::Deploy(Canary)),
            (Whose::StatelessSkill, &[Part::Code], Leap::Major, Road::Deploy(Rolling)),
            (Whose::StatefulSkill, &[Part::Code], Leap::Minor, Road::HotSwap),
            (Whose::Agent, &[Part::Code], Leap::Major, Road::Deploy(Rolling)),
            (Whose::WorkerSkill, &[Part::Code], Leap::Minor, Road::Deploy(Rolling)),
            (Whose::Agent, &[Part::Core], Leap::Minor, Road::Deploy(BlueGreen)),
            (Whose::Agent, &[Part::Knowledge], Leap::Major, Road::Refresh),
            (Whose::Agent, &[], Leap::Minor, Road::Stay),
        ] {
            assert_eq!(road(whose, parts, leap), expected, "{whose:?} {parts:?} {leap:?}");
        }
    }

    #[test]
    fn of_several_parts_the_most_careful_decides() {
        let all = [Part::Knowledge, Part::Code, Part::Prompt, Part::Model, Part::Core];
        assert_eq!(road(Whose::Agent, &all, Leap::Minor), Road::Deploy(Strategy::BlueGreen));
        assert_eq!(road(Whose::Agent, &all[..3], Leap::Minor), Road::Deploy(Strategy::Canary));
        assert_eq!(road(Whose::Agent, &all[..2], Leap::Minor), Road::Deploy(Strategy::Rolling));
    }
}
