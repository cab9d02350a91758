//! Apps that need others: who starts when, and who ends before whom.
//!
//! ```text
//!               start                 all that it needs            all its workers
//!                                     was ready once               were ready
//!  (not wanted) ─────► Waiting ───────────────────────► Begun ───────────────────► Served
//!                        ▲                                                           │
//!                        └────────── stop and start, a reboot, a daemon's end ───────┘
//! ```
//!
//! Owns the rule and its order. An app starts no worker while it is [`Rise::Waiting`]; it leaves that state when every
//! app that it needs is [`Rise::Served`]. What becomes of a needed app later is nobody's business but its own: a crash
//! of it stops no dependant. The other way round, an app that is asked to end goes on serving while a dependant that
//! was asked to end as well still has a process. That needs are known and form no circle is the configuration's to
//! check ([`order`] finds what is wrong); an app that was deleted since is waited for, and said so.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::app::{App, Context, Desired};
use crate::effect::Outcome;
use crate::fleet::Fleet;
use crate::id::AppName;
use crate::time::Tick;
use crate::worker::Phase;

/// How far an app has come since it was last asked to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rise {
    /// It starts nothing: something that it needs was not ready yet.
    Waiting,
    /// Its workers may start.
    Begun,
    /// It served with all its workers once. What was stored before there were needs is taken for this.
    #[default]
    Served,
}

/// Why an app is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// It is on its way.
    Starting,
    /// It waits itself.
    Waiting,
    /// Nobody asked it to run.
    Stopped,
    /// It waits for a person; why.
    Failed(String),
    /// Nobody knows it.
    Unknown,
}

impl Lack {
    /// In words, after the name of the needed app.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Starting => "which is starting".to_owned(),
            Self::Waiting => "which waits itself".to_owned(),
            Self::Stopped => "which is stopped".to_owned(),
            Self::Failed(why) => format!("which failed: {why}"),
            Self::Unknown => "which nobody knows".to_owned(),
        }
    }
}

/// What is waited for, in one sentence that follows the app's name.
#[must_use]
pub fn sentence(lacks: &[(AppName, Lack)]) -> String {
    let each: Vec<String> = lacks.iter().map(|(name, lack)| format!("{name}, {}", lack.words())).collect();
    format!("waits for {}", each.join("; and for "))
}

/// Names that need each other in a circle: each needs the next, and the last the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circle(pub Vec<AppName>);

/// The names in an order in which each comes after all that it needs; otherwise as they were. Needs that are not among
/// the names count for nothing.
///
/// # Errors
/// A circle, when there is one.
pub fn order<'n>(
    names: impl IntoIterator<Item = &'n AppName>,
    needs: &BTreeMap<AppName, BTreeSet<AppName>>,
) -> Result<Vec<AppName>, Circle> {
    let names: Vec<&AppName> = names.into_iter().collect();
    let known: BTreeSet<&AppName> = names.iter().copied().collect();
    let mut placed: BTreeSet<&AppName> = BTreeSet::new();
    let mut ordered = Vec::new();
    for name in &names {
        // A path down the needs, each with those of its needs that were not looked at yet.
        let mut path: Vec<(&AppName, Vec<&AppName>)> = Vec::new();
        let open = |name: &AppName| -> Vec<&AppName> {
            needs.get(name).into_iter().flatten().rev().filter(|need| known.contains(need)).collect()
        };
        if !placed.contains(name) {
            path.push((name, open(name)));
        }
        while let Some((at, left)) = path.last_mut() {
            let at = *at;
            let Some(next) = left.pop() else {
                placed.insert(at);
                ordered.push(at.clone());
                path.pop();
                continue;
            };
            if let Some(from) = path.iter().position(|(on, _)| *on == next) {
                return Err(Circle(path[from..].iter().map(|(on, _)| (*on).clone()).collect()));
            }
            if !placed.contains(next) {
                path.push((next, open(next)));
            }
        }
    }
    Ok(ordered)
}

impl App {
    /// Whether it is on its way out and still has a process.
    fn is_leaving(&self, winding_down: bool) -> bool {
        (winding_down || self.head.desired != Desired::Running) && self.has_any_process()
    }

    /// Why a worker that ended for good did not end well: a needed one-shot that failed meets no need.
    fn fell(&self) -> Option<String> {
        let ended = self.workers.values().filter(|worker| worker.state.phase() == Phase::Exited);
        ended
            .filter_map(|worker| worker.last_exit.as_ref())
            .find(|last| !last.exit.is_success())
            .map(|last| last.reason.clone())
    }

    /// It was ready as a whole.
    pub(crate) fn note_risen(&mut self, cx: &mut Context<'_>) {
        if self.head.rise == Rise::Begun && self.head.rollout.is_none() && self.serving() && self.fell().is_none() {
            self.head.rise = Rise::Served;
            cx.out.save_app(&self.head.name);
        }
    }

    /// The next time that it runs it waits again for what it needs.
    pub(crate) fn wait_again(&mut self, cx: &mut Context<'_>) {
        if self.head.desired == Desired::Running {
            self.head.rise = Rise::Waiting;
            cx.out.save_app(&self.head.name);
        }
    }
}

impl Fleet {
    /// What `app` waits for; nothing when it does not wait.
    #[must_use]
    pub fn lacks(&self, app: &App) -> Vec<(AppName, Lack)> {
        if app.head.desired != Desired::Running || app.head.rise != Rise::Waiting {
            return Vec::new();
        }
        let needs = app.policy_now().needs.iter();
        needs.filter_map(|need| Some((need.clone(), self.lack(self.app(need))?))).collect()
    }

    fn lack(&self, needed: Option<&App>) -> Option<Lack> {
        let Some(app) = needed else { return Some(Lack::Unknown) };
        match (app.head.desired, app.head.rise) {
            (Desired::Stopped | Desired::Deleted, _) => Some(Lack::Stopped),
            (Desired::Running, Rise::Served) => None,
            (Desired::Running, Rise::Waiting) => Some(Lack::Waiting),
            (Desired::Running, Rise::Begun) => {
                Some(app.parked_why().or_else(|| app.fell()).map_or(Lack::Starting, Lack::Failed))
            }
        }
    }

    /// Whether something that `app` needs, or that those need in turn, will not come by waiting alone. `seen` keeps a
    /// circle, which a configuration cannot hold, from going round for ever.
    #[must_use]
    fn waits_in_vain<'f>(&'f self, app: &'f App, seen: &mut BTreeSet<&'f AppName>) -> bool {
        seen.insert(&app.head.name);
        app.policy_now().needs.iter().any(|need| match self.lack(self.app(need)) {
            Some(Lack::Stopped | Lack::Failed(_) | Lack::Unknown) => true,
            Some(Lack::Waiting) if !seen.contains(need) => {
                self.app(need).is_some_and(|needed| self.waits_in_vain(needed, seen))
            }
            Some(Lack::Starting | Lack::Waiting) | None => false,
        })
    }

    /// Whether an app that waits does so in vain, as things are: see [`Lack`].
    #[must_use]
    pub fn is_stuck(&self, app: &App) -> bool {
        self.waits_in_vain(app, &mut BTreeSet::new())
    }

    /// Whether a dependant that is on its way out keeps `name` serving.
    pub(crate) fn is_held(&self, name: &AppName) -> bool {
        self.apps().any(|app| {
            app.policy_now().needs.contains(name) && app.head.name != *name && app.is_leaving(self.winding_down)
        })
    }

    /// After a step: lets those start whose needs were met by it, tells those who wait in vain, and lets those end whose
    /// last dependant is gone.
    pub(crate) fn follow_needs(&mut self, tick: Tick, out: &mut Outcome) {
        loop {
            let next = self.apps().find_map(|app| Some((app.head.name.clone(), self.next_for(app)?)));
            let Some((name, step)) = next else { return };
            self.with_app(&name, tick, out, |app, cx| match step {
                NeedsStep::Begin => {
                    app.head.rise = Rise::Begun;
                    cx.out.save_app(&app.head.name);
                    app.reconcile(cx);
                }
                NeedsStep::Tell(why) => app.waits_in_vain(cx, &why),
                NeedsStep::End => app.reconcile(cx),
            });
        }
    }

    fn next_for(&self, app: &App) -> Option<NeedsStep> {
        if app.head.desired == Desired::Running && app.head.rise == Rise::Waiting && !self.winding_down {
            let lacks = self.lacks(app);
            if lacks.is_empty() {
                return Some(NeedsStep::Begin);
            }
            return (app.is_awaited() && self.is_stuck(app)).then(|| NeedsStep::Tell(sentence(&lacks)));
        }
        let ends = app.is_leaving(self.winding_down) && app.is_serving_on() && !self.is_held(&app.head.name);
        ends.then_some(NeedsStep::End)
    }
}

/// What the needs of an app make of it.
enum NeedsStep {
    /// They are met.
    Begin,
    /// They are not, and will not be by themselves.
    Tell(String),
    /// Nobody holds it any more.
    End,
}
