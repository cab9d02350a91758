//! A worker's process with an SDK in it: dials and redials, keeps what is unacknowledged and sends it again, beats,
//! runs tasks step by step, and ends itself when it is told that a task is not its own any more.

use std::collections::{BTreeMap, VecDeque};

use agentd_core::id::{Launch, Pid};
use agentd_core::task::{
    Answer, Begin, EffectAnswer, EffectKey, Ending, Fence, Kind, Link, Message, Own, Refused, TaskId, Word,
};

/// One process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) launch: Launch,
    pub(super) pid: Pid,
    pub(super) max_tasks: u32,
    pub(super) state_version: Option<u32>,
    pub(super) dialled: Dialled,
    /// Stopped (SIGSTOP): it neither reads nor works.
    pub(super) paused: bool,
    /// It may rightly be told that it lost a task: it was paused, or its drain had no more time.
    pub(super) excused: bool,
    pub(super) held: BTreeMap<TaskId, Held>,
    outbox: VecDeque<Pending>,
    numbers: u64,
    draining: bool,
}

/// How a process stands with the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialled {
    /// Not connected.
    No,
    /// It said hello and awaits the welcome.
    Greeting(Link),
    /// Welcome.
    Yes(Link),
}

/// A request that was not answered.
#[derive(Clone, Debug)]
struct Pending {
    number: u64,
    message: Message,
}

/// A task that the process is at.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) fence: Fence,
    /// The last step that is done.
    pub(super) step: u64,
    pub(super) at: At,
    cancelled: bool,
}

/// Where a process is with a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// At its next step.
    Working,
    /// It asked something and awaits the answer.
    Asking,
    /// It gave the task up and awaits the answer.
    Yielding,
}

/// What a process does when it is told something.
#[derive(Debug)]
pub(super) enum Deed {
    /// It says this.
    Say(u64, Message),
    /// It goes on with a task.
    Work(TaskId, Fence),
    /// It does something that the world sees.
    Perform,
    /// It says this again after a while: the store refused it.
    SayAgain(u64),
    /// It ends itself: a task was taken from it.
    Exit,
    /// What it was told can never be right.
    Wrong(String),
}

/// What the answer to a message can be on the wire.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Said(Result<Answer, Refused>),
    /// The store could not write it.
    Store,
}

/// The steps of a task, the same wherever it runs.
pub(super) struct Program(u64);

impl Program {
    pub(super) fn of(task: &TaskId) -> Self {
        let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(task.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, fold))
    }

    fn steps(&self) -> u64 {
        1 + (self.0 >> 8) % 5
    }

    fn effect(&self, step: u64) -> Option<(EffectKey, Kind)> {
        let kind = ["mail", "model", "log"][usize::try_from((self.0 >> 16) % 3).unwrap_or(0)];
        let has = (self.0 >> (20 + step)) & 1 == 1;
        has.then(|| (name(&format!("{step}:{kind}")), kind_of(kind)))
    }
}

fn name(text: &str) -> EffectKey {
    EffectKey::new(text).expect("a short text is an effect's key")
}

pub(super) fn kind_of(text: &str) -> Kind {
    Kind::new(text).expect("a short text is a kind")
}

impl Process {
    pub(super) fn new(launch: Launch, pid: Pid, max_tasks: u32, state_version: Option<u32>) -> Self {
        Self {
            launch,
            pid,
            max_tasks,
            state_version,
            dialled: Dialled::No,
            paused: false,
            excused: false,
            held: BTreeMap::new(),
            outbox: VecDeque::new(),
            numbers: 0,
            draining: false,
        }
    }

    /// Asks for something; said at once when it is welcome, else once it is.
    fn ask(&mut self, message: Message) -> Deed {
        self.numbers += 1;
        self.outbox.push_back(Pending { number: self.numbers, message: message.clone() });
        Deed::Say(self.numbers, message)
    }

    pub(super) fn begin(&mut self, begin: Begin) -> Deed {
        self.ask(Message::Begin(begin))
    }

    pub(super) fn beat(&mut self) -> Deed {
        let own = |(task, held): (&TaskId, &Held)| (Own { task: task.clone(), fence: held.fence }, None);
        Deed::Say(0, Message::Beat { tasks: self.held.iter().map(own).collect() })
    }

    /// What is still unanswered under a number.
    pub(super) fn unanswered(&self, number: u64) -> Option<Message> {
        self.outbox.iter().find(|pending| pending.number == number).map(|pending| pending.message.clone())
    }

    /// Whether something is unanswered.
    pub(super) fn asks(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// The connection is gone.
    pub(super) fn disconnected(&mut self) {
        self.dialled = Dialled::No;
    }

    /// Goes on with a task: its next step is done, up to what must be asked or told.
    pub(super) fn work(&mut self, task: &TaskId, fence: Fence, yields: bool) -> Option<Deed> {
        let held = self.held.get_mut(task).filter(|held| held.fence == fence && held.at == At::Working)?;
        let own = Own { task: task.clone(), fence };
        held.at = At::Asking;
        let program = Program::of(task);
        let message = if held.cancelled {
            Message::End { own, outcome: Ending::Cancelled }
        } else if held.step >= program.steps() {
            let outcome = if program.0.is_multiple_of(11) { Ending::Error } else { Ending::Ok };
            Message::End { own, outcome }
        } else if self.draining && yields && held.step > 0 {
            held.at = At::Yielding;
            Message::Yield { own }
        } else {
            match program.effect(held.step + 1) {
                Some((key, kind)) => Message::EffectBegin { own, key, kind },
                None => checkpoint(own, held.step + 1, self.state_version),
            }
        };
        Some(self.ask(message))
    }

    /// Hears an answer.
    pub(super) fn hear(&mut self, number: u64, reply: Reply) -> Vec<Deed> {
        let said = match reply {
            Reply::Said(said) => said,
            Reply::Store => return vec![Deed::SayAgain(number)],
        };
        let Some(index) = self.outbox.iter().position(|pending| pending.number == number) else {
            // A beat's, or one that was answered before.
            return match said {
                Err(Refused::Fenced { .. } | Refused::UnknownWorker(_)) => vec![Deed::Exit],
                Err(_) | Ok(_) => Vec::new(),
            };
        };
        let Some(pending) = self.outbox.remove(index) else { return Vec::new() };
        match said {
            Ok(answer) => self.answered(pending.message, answer),
            Err(refused) => self.refused(&pending.message, refused),
        }
    }

    fn answered(&mut self, message: Message, answer: Answer) -> Vec<Deed> {
        match (message, answer) {
            (Message::Begin(_), Answer::Begun { task, fence, checkpoint, .. }) => self.take_up(task, fence, checkpoint),
            (Message::EffectBegin { own, key, .. }, Answer::Effect(answer)) => {
                if !self.still(&own) {
                    return Vec::new();
                }
                match answer {
                    EffectAnswer::New | EffectAnswer::Retry => {
                        let ended = Message::EffectEnd { own: own.clone(), key: key.clone(), ok: true };
                        vec![Deed::Perform, self.ask(ended)]
                    }
                    EffectAnswer::Done | EffectAnswer::Skip => self.next_checkpoint(own),
                    EffectAnswer::Parked => {
                        self.held.remove(&own.task);
                        Vec::new()
                    }
                }
            }
            (Message::EffectEnd { own, .. }, Answer::Ok) => {
                if self.still(&own) {
                    self.next_checkpoint(own)
                } else {
                    Vec::new()
                }
            }
            (Message::Checkpoint { own, step, .. }, Answer::Ok) => {
                if let Some(held) = self.held.get_mut(&own.task).filter(|held| held.fence == own.fence) {
                    held.step = step;
                    held.at = At::Working;
                    return vec![Deed::Work(own.task, own.fence)];
                }
                Vec::new()
            }
            (Message::End { own, .. } | Message::Yield { own }, Answer::Ok) => {
                if self.still(&own) {
                    self.held.remove(&own.task);
                }
                Vec::new()
            }
            (Message::Begin(_), Answer::Duplicate { .. }) | (Message::Beat { .. }, Answer::Ok) => Vec::new(),
            (message, answer) => vec![Deed::Wrong(format!("{message:?} was answered {answer:?}"))],
        }
    }

    fn still(&self, own: &Own) -> bool {
        self.held.get(&own.task).is_some_and(|held| held.fence == own.fence)
    }

    fn next_checkpoint(&mut self, own: Own) -> Vec<Deed> {
        let step = self.held.get(&own.task).map_or(0, |held| held.step) + 1;
        let message = checkpoint(own, step, self.state_version);
        vec![self.ask(message)]
    }

    fn refused(&mut self, message: &Message, refused: Refused) -> Vec<Deed> {
        match (message, refused) {
            (_, Refused::Fenced { .. } | Refused::UnknownWorker(_)) => vec![Deed::Exit],
            // Its yield must wait: it goes on instead.
            (Message::Yield { own }, Refused::NotResumable(_)) => match self.held.get_mut(&own.task) {
                Some(held) => {
                    held.at = At::Working;
                    vec![Deed::Work(own.task.clone(), own.fence)]
                }
                None => Vec::new(),
            },
            // The end of a task that a client began once more by its id.
            (Message::Begin(_), Refused::Ended { .. } | Refused::TooMany { .. }) => Vec::new(),
            (message, refused) => vec![Deed::Wrong(format!("{message:?} was refused: {refused}"))],
        }
    }

    fn take_up(&mut self, task: TaskId, fence: Fence, checkpoint: Option<u64>) -> Vec<Deed> {
        if self.held.get(&task).is_some_and(|held| held.fence == fence) {
            return Vec::new();
        }
        let held = Held { fence, step: checkpoint.unwrap_or(0), at: At::Working, cancelled: false };
        self.held.insert(task.clone(), held);
        vec![Deed::Work(task, fence)]
    }

    /// Hears a word.
    pub(super) fn told(&mut self, word: Word) -> Vec<Deed> {
        match word {
            Word::Run { task, fence, checkpoint, .. } => match self.held.get(&task) {
                Some(held) if held.fence >= fence => Vec::new(),
                // It gave it up, and gets it again before the answer to that.
                Some(held) if held.at == At::Yielding => self.take_up(task, fence, checkpoint),
                Some(_) => vec![Deed::Exit],
                None => self.take_up(task, fence, checkpoint),
            },
            Word::Drain { .. } => {
                self.draining = true;
                Vec::new()
            }
            Word::DrainEnded => {
                self.draining = false;
                Vec::new()
            }
            Word::CheckpointNow { .. } => Vec::new(),
            Word::Cancel { task, .. } => {
                if let Some(held) = self.held.get_mut(&task) {
                    held.cancelled = true;
                }
                Vec::new()
            }
            Word::Fenced { task } if self.held.contains_key(&task) => vec![Deed::Exit],
            Word::Fenced { .. } => Vec::new(),
        }
    }

    /// It is welcome: what is unanswered is said again, in order.
    pub(super) fn welcomed(&mut self, link: Link) -> Vec<Deed> {
        self.dialled = Dialled::Yes(link);
        let again = self.outbox.iter().map(|pending| Deed::Say(pending.number, pending.message.clone()));
        again.collect()
    }
}

fn checkpoint(own: Own, step: u64, state_version: Option<u32>) -> Message {
    Message::Checkpoint { own, step, safe: true, state_version }
}
