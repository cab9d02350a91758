//! A worker's line, from its bytes to rows and an answer.
//!
//! Order within a line: what core needs to know is looked up, core decides, its rows are written with the payloads that
//! the line carries, the answer is put together from what the database now has. Nothing of it leaves before the commit.

use std::time::Duration;

use agentd_core::id::Pid;
use agentd_core::task::{
    Answer, Duplicate, EffectAnswer, Ended, Known, Link as CoreLink, Outcome, Row, Speaker, State, TaskId, ToWorker,
    Word,
};
use agentd_core::time::Tick;
use agentd_protocol::worker::{
    self, Begun, Code, Deleted, Dup, Effected, Found, Held, IntentPolicy, Item, Line, Message as WireMessage, Nothing,
    Page, Put, Request, Resumed, Snapshot, Text, Welcome,
};
use serde_json::value::RawValue;

use super::db::{About, DbError, Epilogue};
use super::desk::Desk;
use super::effects::Intent;
use super::figures::Figures;
use super::kv::Deleting;
use super::link::{Link, Standing};
use super::payload::Payload;
use super::wire::{self, Refusal};

/// Connections of one worker, of all its processes together.
const LINKS_OF_ONE: u32 = 64;

/// Why a line is not answered as asked.
enum Stop {
    /// It is refused, and nothing changed.
    Refused(Refusal),
    /// It cannot be written, and with it the whole round.
    Failed(DbError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<DbError> for Stop {
    fn from(error: DbError) -> Self {
        Self::Failed(error)
    }
}

fn malformed(why: impl Into<String>) -> Stop {
    Stop::Refused((Code::Malformed, why.into()))
}

impl Desk {
    /// Takes in one line of a connection.
    pub(super) fn line(&mut self, id: u64, line: &[u8], tick: Tick) {
        self.batch.touched.insert(id);
        let Line { n, request } = match Line::decode(line) {
            Ok(line) => line,
            Err(wrong) => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.refuse(wrong.n, wrong.code, &wrong.msg);
                }
                return;
            }
        };
        let Some(link) = self.links.get_mut(&id) else { return };
        link.ask(n);
        if self.batch.failed.is_some() {
            return;
        }
        let done = match (&link.standing, &request) {
            (Standing::Fresh { .. }, Request::Hello(_)) => self.hello(id, n, &request, tick),
            (Standing::Fresh { .. }, _) => Err((Code::Hello, "say hello first".to_owned()).into()),
            (Standing::Known { .. }, Request::Hello(_)) => {
                Err((Code::Hello, "hello is said once a connection".to_owned()).into())
            }
            (Standing::Known { launch, .. }, _) => {
                let from = Speaker { launch: *launch, pid: Pid(link.peer.pid), link: CoreLink(id) };
                self.request(id, n, from, &request, tick)
            }
            (Standing::Leaving { .. }, _) => Ok(()),
        };
        match done {
            Ok(()) => {}
            Err(Stop::Failed(error)) => self.fail(&error),
            Err(Stop::Refused((code, why))) if code.closes() => self.turn_away(id, n, code, &why),
            Err(Stop::Refused((code, why))) => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.refuse(n, code, &why);
                }
            }
        }
    }

    /// Who is there?
    fn hello(&mut self, id: u64, n: Option<u64>, request: &Request<'_>, tick: Tick) -> Result<(), Stop> {
        let (Request::Hello(hello), Some(link)) = (request, self.links.get_mut(&id)) else { return Ok(()) };
        let refuse = |code, why: &str| Err(Stop::Refused((code, why.to_owned())));
        let spoken = worker::parse_version(&hello.proto).and_then(worker::negotiate);
        let Some(version) = spoken else {
            let why = format!(
                "{:.40} is not spoken here: agentd/{} to agentd/{} are",
                &*hello.proto,
                worker::OLDEST,
                worker::VERSION
            );
            return refuse(Code::Version, &why);
        };
        let Some(launch) = self.secret.launch_of(&hello.token) else {
            return refuse(Code::Token, "the token is not that of a worker of this instance");
        };
        let Some(known) = self.launches.get_mut(&launch) else {
            return refuse(Code::Gone, "this worker has ended");
        };
        if !known.takes(link.peer.uid) {
            return refuse(Code::Token, "the token belongs to a worker of another user");
        }
        if known.links >= LINKS_OF_ONE {
            self.turn_away(id, n, Code::Flood, &format!("a worker has at most {LINKS_OF_ONE} connections"));
            return Ok(());
        }
        known.links += 1;
        link.standing = Standing::Known { launch, large_until: None };
        let from = Speaker { launch, pid: Pid(link.peer.pid), link: CoreLink(id) };
        let message = wire::message(request)?;
        let Some(message) = message else { return Ok(()) };
        let mut out = Outcome::default();
        let answer = self.ledger.message(tick, from, message, Known::default(), &mut out);
        let answer = answer.map_err(|refused| Stop::Refused(wire::refusal(&refused)));
        if let (Ok(Answer::Welcome { resume, lease }), Some(known)) = (&answer, self.launches.get(&launch)) {
            let resume = resume.iter().map(|held| Held {
                task: held.task.as_str().into(),
                fence: held.fence.0,
                step: held.checkpoint,
            });
            let welcome = Welcome {
                proto: format!("agentd/{version}").into(),
                worker: known.name.as_str().into(),
                generation: known.worker.generation.0,
                release: known.release.as_str().into(),
                lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
                resume: resume.collect(),
            };
            if let Some(link) = self.links.get_mut(&id) {
                link.answer(n, &welcome);
            }
            self.tell_refresh_again(id, launch);
        }
        self.write_rows(&mut out, Some(request))?;
        self.take_up(tick, out);
        answer.map(drop)
    }

    /// Something that a known worker says.
    fn request(
        &mut self,
        id: u64,
        n: Option<u64>,
        from: Speaker,
        request: &Request<'_>,
        tick: Tick,
    ) -> Result<(), Stop> {
        // What is wrong with a payload is known before anything is decided.
        if let Request::Ckpt(ckpt) = request {
            Payload::of_fields(ckpt.data.as_ref(), ckpt.json).map_err(malformed)?;
        }
        let mut out = Outcome::default();
        let answer = match wire::message(request)? {
            None => Answer::Ok,
            Some(message) => {
                let known = self.db.known(&self.ledger.needs(from.launch, &message))?;
                let ended = known.task.clone().or_else(|| known.key.clone());
                let decided = self.ledger.message(tick, from, message, known, &mut out);
                let answer = decided.map_err(|refused| Stop::Refused(wire::refusal(&refused)));
                // A refusal may have rows as well: none of today's has, and none would be lost.
                self.write_rows(&mut out, Some(request))?;
                let answer = match answer {
                    Ok(answer) => answer,
                    Err(stop) => {
                        self.take_up(tick, out);
                        return Err(stop);
                    }
                };
                if let Answer::Duplicate { task, of } = &answer {
                    self.answer_duplicate(id, n, task, *of, ended.as_ref())?;
                    self.take_up(tick, out);
                    return Ok(());
                }
                answer
            }
        };
        self.unshown.insert(from.launch);
        self.answer(id, n, from, request, answer)?;
        self.take_up(tick, out);
        Ok(())
    }

    fn answer(
        &mut self,
        id: u64,
        n: Option<u64>,
        from: Speaker,
        request: &Request<'_>,
        answer: Answer,
    ) -> Result<(), Stop> {
        match (answer, request) {
            (Answer::Begun { task, fence, attempt, checkpoint }, _) => {
                let kept = checkpoint.map(|step| self.db.ckpt(&task, step)).transpose()?.flatten();
                let ckpt =
                    checkpoint.zip(kept.as_ref()).map(|(step, (payload, version))| snapshot(step, payload, *version));
                let begun = Begun {
                    task: task.as_str().into(),
                    fence: fence.0,
                    attempt,
                    dup: None,
                    outcome: None,
                    result: None,
                    ckpt,
                };
                self.say(id, n, &begun);
            }
            (Answer::Effect(answer), Request::EffectBegin(effect)) => {
                self.answer_effect(id, n, &effect.task, &effect.key, answer)?;
            }
            (Answer::Effect(_) | Answer::Ok | Answer::Welcome { .. } | Answer::Duplicate { .. }, _) => {
                self.answer_kv(id, n, from, request)?;
            }
        }
        Ok(())
    }

    fn answer_effect(
        &mut self,
        id: u64,
        n: Option<u64>,
        task: &str,
        name: &str,
        answer: EffectAnswer,
    ) -> Result<(), Stop> {
        let key = || Text::from(format!("{task}:{name}"));
        let effected = match answer {
            EffectAnswer::New => Effected::New { key: key() },
            EffectAnswer::Retry => Effected::Intent { key: key(), policy: IntentPolicy::Retry },
            EffectAnswer::Skip => Effected::Intent { key: key(), policy: IntentPolicy::Skip },
            EffectAnswer::Parked => Effected::Intent { key: key(), policy: IntentPolicy::Ask },
            EffectAnswer::Done => {
                let result = match (TaskId::new(task), agentd_core::task::EffectKey::new(name)) {
                    (Ok(task), Ok(key)) => self.db.effect_result(&task, &key)?,
                    (Err(error), _) | (_, Err(error)) => return Err(wire::wrong(error).into()),
                };
                let result = result.as_ref().and_then(|payload| payload.fields().1).unwrap_or(RawValue::NULL);
                self.say(id, n, &Effected::Done { result });
                return Ok(());
            }
        };
        self.say(id, n, &effected);
        Ok(())
    }

    fn answer_duplicate(
        &mut self,
        id: u64,
        n: Option<u64>,
        task: &TaskId,
        of: Duplicate,
        ended: Option<&Ended>,
    ) -> Result<(), Stop> {
        let found = match of {
            Duplicate::Done => self.db.result(task)?,
            Duplicate::Running | Duplicate::Waiting | Duplicate::Parked => None,
        };
        let (outcome, result) = found.unwrap_or_default();
        let begun = Begun {
            task: task.as_str().into(),
            fence: 0,
            attempt: ended.map_or(1, |ended| u32::try_from(ended.fence.0).unwrap_or(u32::MAX)),
            dup: Some(if of == Duplicate::Done { Dup::Done } else { Dup::Running }),
            outcome: wire::outcome(&outcome),
            result: result.as_ref().and_then(|payload| payload.fields().1),
            ckpt: None,
        };
        self.say(id, n, &begun);
        Ok(())
    }

    /// The small store; and whatever else is answered with nothing more.
    fn answer_kv(&mut self, id: u64, n: Option<u64>, from: Speaker, request: &Request<'_>) -> Result<(), Stop> {
        let Some(app) = self.launches.get(&from.launch).map(|known| known.worker.app.clone()) else {
            return Err((Code::Gone, "this worker has ended".to_owned()).into());
        };
        match request {
            Request::KvPut(put) => {
                let values = put.items.iter().map(|item| Payload::of_fields(item.data.as_ref(), item.json));
                let values = values.collect::<Result<Vec<_>, _>>().map_err(malformed)?;
                let mut done = Vec::with_capacity(values.len());
                for (item, value) in put.items.iter().zip(&values) {
                    done.push(self.db.put(&app, &put.ns, &item.key, value, item.if_absent)?);
                }
                self.say(id, n, &Put { put: done });
            }
            Request::KvGet(get) => {
                let value = self.db.get(&app, &get.ns, &get.key)?;
                let (data, json) = value.as_ref().map_or((None, None), Payload::fields);
                self.say(id, n, &Found { found: value.is_some(), data, json });
            }
            Request::KvScan(scan) => {
                let page = self.db.scan(&app, scan)?;
                let items = page.items.iter().map(|(key, value)| {
                    let (data, json) = value.as_ref().map_or((None, None), Payload::fields);
                    Item { key: key.as_str().into(), data, json }
                });
                let page = Page { items: items.collect(), more: page.more };
                self.say(id, n, &page);
            }
            Request::KvDel(del) => {
                let Some(what) = Deleting::of_fields(del.key.as_ref(), del.prefix.as_ref()) else {
                    return Err(malformed("kv.del takes a key or a prefix"));
                };
                let deleted = self.db.del(&app, &del.ns, &what)?;
                self.say(id, n, &Deleted { deleted });
            }
            Request::Hello(_)
            | Request::Ready
            | Request::Begin(_)
            | Request::Ckpt(_)
            | Request::EffectBegin(_)
            | Request::EffectEnd(_)
            | Request::End(_)
            | Request::Yield(_)
            | Request::Beat(_) => self.say(id, n, &Nothing {}),
            Request::Refreshed(said) => {
                self.heard_refreshed(id, from.launch, said);
                self.say(id, n, &Nothing {});
            }
        }
        Ok(())
    }

    fn say<T: serde::Serialize>(&mut self, id: u64, n: Option<u64>, body: &T) {
        if let Some(link) = self.links.get_mut(&id) {
            link.answer(n, body);
        }
    }

    /// Writes what a step asks for, with the payloads of the request that led to it.
    pub(super) fn write_rows(&mut self, out: &mut Outcome, request: Option<&Request<'_>>) -> Result<(), DbError> {
        for row in std::mem::take(&mut out.rows) {
            match row {
                Row::Task(id) => self.write_task(&id, request)?,
                Row::Checkpoint { task, fence, mark } => {
                    if let Some(Request::Ckpt(ckpt)) = request
                        && let Ok(payload) = Payload::of_fields(ckpt.data.as_ref(), ckpt.json)
                    {
                        self.db.write_ckpt(&task, fence, &mark, &payload)?;
                    }
                }
                Row::Effect { task, key, fence, kind, state } => {
                    if let (Some(kind), Some(Request::EffectBegin(effect))) = (&kind, request)
                        && state == agentd_core::task::EffectState::Intent
                        && let Some(open) = self.ledger.task(&task)
                    {
                        let launched = open.owner().and_then(|launch| self.launches.get(&launch));
                        self.db.begin_effect(&Intent {
                            task: &task,
                            key: &key,
                            app: &open.app,
                            release: launched.map_or("", |launched| &launched.release),
                            kind,
                            fence,
                            description: effect.desc.as_deref(),
                            compensate: effect.compensate.map(RawValue::get),
                        })?;
                        continue;
                    }
                    let (result, error) = match request {
                        Some(Request::EffectEnd(end)) => (end.result.map(Payload::json), end.error.map(RawValue::get)),
                        Some(_) | None => (None, None),
                    };
                    self.db.end_effect(&task, &key, fence, state, result.as_ref(), error)?;
                }
                Row::Ended { ended, ran } => self.write_end(&ended, ran, request)?,
            }
        }
        Ok(())
    }

    fn write_task(&mut self, id: &TaskId, request: Option<&Request<'_>>) -> Result<(), DbError> {
        let Some(task) = self.ledger.task(id) else { return Ok(()) };
        let launched = task.owner().and_then(|launch| self.launches.get(&launch));
        let begin = match request {
            Some(Request::Begin(begin)) => Some(begin),
            Some(_) | None => None,
        };
        let about = About {
            traceparent: begin.and_then(|begin| begin.traceparent.as_deref()),
            release: launched.map_or("", |launched| &launched.release),
            worker: launched.map_or("", |launched| &launched.name),
        };
        self.db.write_task(task, &about)?;
        if let Some(input) = begin.and_then(|begin| begin.input) {
            self.db.write_input(id, &Payload::json(input))?;
        }
        match &task.state {
            State::Running(_) | State::Told { .. } => self.measures.runs(task),
            State::Waiting { .. } | State::Parked { .. } => {}
        }
        Ok(())
    }

    fn write_end(&mut self, ended: &Ended, ran: Duration, request: Option<&Request<'_>>) -> Result<(), DbError> {
        let (figures, payload) = match request {
            Some(Request::End(end)) => (Figures::of(end), end.result.or(end.error).map(Payload::json)),
            Some(_) | None => (Figures::default(), None),
        };
        self.sweeper.ended(&ended.app);
        self.panels.ended(&self.db, ended, ran, &figures)?;
        self.db.end_task(ended, ran, &Epilogue { payload, figures: figures.to_json() })
    }

    /// Takes up what a step left beside its rows: words to workers, facts, spans.
    pub(super) fn take_up(&mut self, tick: Tick, mut out: Outcome) {
        if !out.rows.is_empty()
            && let Err(error) = self.write_rows(&mut out, None)
        {
            self.fail(&error);
            return;
        }
        for ToWorker { launch, link, word } in out.words {
            self.unshown.insert(launch);
            if let Err(error) = self.tell(link.0, &word, tick) {
                self.fail(&error);
                return;
            }
        }
        self.batch.facts.append(&mut out.facts);
        for span in out.spans {
            self.measures.learn(&span, tick.now);
        }
    }

    /// Stages a word for a worker.
    fn tell(&mut self, id: u64, word: &Word, tick: Tick) -> Result<(), DbError> {
        let Self { db, links, batch, .. } = self;
        let Some(link) = links.get_mut(&id) else { return Ok(()) };
        batch.touched.insert(id);
        let mut tell = |message: &WireMessage<'_>| Link::tell(link, message);
        match word {
            Word::Run { task, fence, kind, session, attempt, checkpoint } => {
                let input = db.input(task)?;
                let kept = checkpoint.map(|step| db.ckpt(task, step)).transpose()?.flatten();
                let (key, traceparent) = db.begun_with(task)?;
                tell(&WireMessage::Run(Resumed {
                    task: task.as_str().into(),
                    fence: fence.0,
                    key: key.map(Text::from),
                    kind: kind.as_ref().map(|kind| kind.as_str().into()),
                    session: session.as_ref().map(|session| session.as_str().into()),
                    input: input.as_ref().and_then(|payload| payload.fields().1),
                    traceparent: traceparent.map(Text::from),
                    attempt: *attempt,
                    ckpt: checkpoint
                        .zip(kept.as_ref())
                        .map(|(step, (payload, version))| snapshot(step, payload, *version)),
                }));
            }
            Word::Drain { deadline, reason, to_release } => tell(&WireMessage::Drain {
                deadline_ms: u64::try_from(deadline.since(tick.now).as_millis()).unwrap_or(u64::MAX),
                reason: wire::drain_reason(reason),
                to_release: to_release.as_deref().map(Text::from),
            }),
            Word::DrainEnded => tell(&WireMessage::Undrain),
            Word::CheckpointNow { task } => tell(&WireMessage::CkptNow { task: task.as_str().into() }),
            Word::Cancel { task, reason } => {
                tell(&WireMessage::Cancel { task: task.as_str().into(), reason: reason.as_str().into() });
            }
            Word::Fenced { task } => tell(&WireMessage::Fenced { task: task.as_str().into() }),
        }
        Ok(())
    }
}

fn snapshot<'a>(step: u64, payload: &'a Payload<'_>, state_version: Option<u32>) -> Snapshot<'a> {
    let (data, json) = payload.fields();
    Snapshot { step, data, json, state_version }
}
