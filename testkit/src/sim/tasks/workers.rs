//! What workers and their processes do in the world: start, drain, end, dial, say, read.

use std::collections::VecDeque;
use std::time::Duration;

use agentd_core::id::{Launch, Pid};
use agentd_core::task::{Begin, Fence, Input, Key, Link, Message, Order, Speaker, TaskId, Told};

use super::super::report::Broken;
use super::fleet::Phase;
use super::process::{Deed, Dialled, Process};
use super::world::{DRAIN_SLACK, Down, HELLO, Happening, Tasks, Up, stamp};

impl Tasks {
    pub(super) fn start(&mut self) {
        let launch = self.fleet.start();
        let version = self.fleet.version(self.fleet.workers[&launch].generation);
        for _ in 0..if self.random.chance(20) { 2 } else { 1 } {
            self.numbers += 1;
            let pid = Pid(u32::try_from(self.numbers).expect("a run has few processes"));
            let max_tasks = if self.calm { 5 } else { self.random.count(0, 4) };
            self.processes.insert(pid, Process::new(launch, pid, max_tasks, version));
            self.soon(20, 300, Happening::Dial(pid));
            self.soon(500, 2_500, Happening::Beat(pid));
        }
        self.soon(100, 1_500, Happening::Ready(launch));
    }

    pub(super) fn reload(&mut self) {
        self.fleet.next_generation();
        let old: Vec<Launch> =
            self.fleet.workers.iter().filter(|(_, w)| w.phase == Phase::Ready).map(|(&l, _)| l).collect();
        for _ in 0..self.fleet.wanted {
            self.start();
        }
        for launch in old {
            self.soon(300, 2_000, Happening::Drain(launch));
        }
    }

    pub(super) fn drain(&mut self, launch: Launch) {
        if !self.fleet.workers.get(&launch).is_some_and(|worker| worker.phase == Phase::Ready) {
            return;
        }
        let deadline = self.now + self.random.millis(200, 8_000);
        let latest = deadline + self.random.millis(0, 8_000);
        self.hands.remove(&launch);
        self.fleet.drain(launch, deadline, latest);
        self.schedule(latest.since(self.now) + DRAIN_SLACK + Duration::from_secs(1), Happening::DrainLate(launch));
        if !self.calm && self.random.chance(15) {
            self.soon(0, 4_000, Happening::Undrain(launch));
        }
    }

    pub(super) fn stop(&mut self, launch: Launch) {
        if self.hands.get(&launch) == Some(&0) && self.fleet.stop(launch) {
            self.soon(0, 1_500, Happening::End(launch));
        }
    }

    pub(super) fn end(&mut self, launch: Launch) {
        let pids: Vec<Pid> = self.processes.values().filter(|p| p.launch == launch).map(|p| p.pid).collect();
        for pid in pids {
            self.leave(pid);
        }
        self.soon(0, 50, Happening::Noticed(launch));
    }

    /// One process ends; its worker does when it was the last.
    pub(super) fn exit(&mut self, pid: Pid) {
        let Some(launch) = self.processes.get(&pid).map(|process| process.launch) else { return };
        self.leave(pid);
        if !self.processes.values().any(|process| process.launch == launch) {
            self.soon(0, 50, Happening::Noticed(launch));
        }
    }

    pub(super) fn leave(&mut self, pid: Pid) {
        self.log.line(format!("{} process {pid} is gone", stamp(self.now)));
        self.hang_up(pid);
        self.processes.remove(&pid);
    }

    /// Its connection closes. What it said before may still be read.
    pub(super) fn hang_up(&mut self, pid: Pid) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        match process.dialled {
            Dialled::No => {}
            Dialled::Greeting(link) | Dialled::Yes(link) => {
                self.down.remove(&link);
                if let Some(up) = self.up.get_mut(&link) {
                    up.closed = true;
                }
            }
        }
        process.disconnected();
        self.gather_soon();
    }

    pub(super) fn disconnect(&mut self, pid: Pid) {
        self.hang_up(pid);
        self.soon(5, 800, Happening::Dial(pid));
    }

    pub(super) fn dial(&mut self, pid: Pid) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if process.dialled != Dialled::No {
            return;
        }
        self.numbers += 1;
        let link = Link(self.numbers);
        process.dialled = Dialled::Greeting(link);
        let speaker = Speaker { launch: process.launch, pid, link };
        let hello = (HELLO, Message::Hello { max_tasks: process.max_tasks });
        self.up.insert(link, Up { speaker, queue: VecDeque::from([hello]), closed: false });
        self.down.insert(link, VecDeque::new());
        self.gather_soon();
    }

    pub(super) fn go_on(&mut self, pid: Pid) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        process.paused = false;
        match process.dialled {
            Dialled::No => self.soon(0, 100, Happening::Dial(pid)),
            Dialled::Greeting(link) | Dialled::Yes(link) => self.soon(0, 20, Happening::Read(link)),
        }
        let held: Vec<_> = self.processes[&pid].held.iter().map(|(id, held)| (id.clone(), held.fence)).collect();
        for (task, fence) in held {
            self.soon(0, 500, Happening::Work(pid, task, fence));
        }
    }

    pub(super) fn begin(&mut self) -> Result<(), Broken> {
        self.soon(1_000, 40_000, Happening::Begin);
        let Some(pid) = self.any_process() else { return Ok(()) };
        self.numbers += 1;
        let name = self.random.between(1, 6);
        let key = self.random.chance(30).then(|| Key::new(&format!("key {name}")).expect("a short text is a key"));
        let task = Some(TaskId::new(&format!("task {}", self.numbers)).expect("a short text is an id"));
        let input = if self.random.chance(60) { Input::Kept } else { Input::Absent };
        let begin = Begin { task, key, kind: None, session: None, input };
        self.deed_of(pid, |process| (!process.paused).then(|| process.begin(begin)))
    }

    pub(super) fn tell(&mut self) {
        let Some(launch) = self.any_launch() else { return };
        self.numbers += 1;
        let task = TaskId::told(launch, &self.numbers.to_string());
        self.fleet.orders.push_back(Order::Told { launch, task: task.clone(), word: Told::Began { kind: None } });
        self.soon(100, 10_000, Happening::TellEnd(launch, task));
    }

    pub(super) fn deed_of(&mut self, pid: Pid, act: impl FnOnce(&mut Process) -> Option<Deed>) -> Result<(), Broken> {
        let deed = self.processes.get_mut(&pid).and_then(act);
        self.do_all(pid, deed.into_iter().collect())
    }

    pub(super) fn work(&mut self, pid: Pid, task: &TaskId, fence: Fence) -> Result<(), Broken> {
        let yields = self.random.chance(80);
        self.deed_of(pid, |process| if process.paused { None } else { process.work(task, fence, yields) })
    }

    pub(super) fn do_all(&mut self, pid: Pid, deeds: Vec<Deed>) -> Result<(), Broken> {
        for deed in deeds {
            match deed {
                Deed::Say(number, message) => self.say(pid, number, message),
                Deed::SayAgain(number) => self.soon(50, 500, Happening::Again(pid, number)),
                Deed::Work(task, fence) => {
                    let lasts = match self.random.between(0, 99) {
                        0..=84 => (5, 1_500),
                        85..=97 => (1_500, 9_000),
                        _ => (20_000, 90_000),
                    };
                    self.soon(lasts.0, lasts.1, Happening::Work(pid, task, fence));
                }
                Deed::Perform => self.seen.effects += 1,
                Deed::Exit => {
                    if self.processes.get(&pid).is_some_and(|process| !process.excused) {
                        let detail = format!("process {pid} was told that a task is not its own");
                        return Err(Broken::new("nobody who is at it is fenced", detail));
                    }
                    self.seen.fenced += 1;
                    self.exit(pid);
                    return Ok(());
                }
                Deed::Wrong(detail) => return Err(Broken::new("every answer makes sense to its worker", detail)),
            }
        }
        Ok(())
    }

    /// Sends a message, now and then twice; while it is not welcome anywhere it waits.
    pub(super) fn say(&mut self, pid: Pid, number: u64, message: Message) {
        let Some(Dialled::Yes(link)) = self.processes.get(&pid).map(|process| process.dialled) else { return };
        let twice = !self.calm && self.random.chance(4);
        let Some(up) = self.up.get_mut(&link) else { return };
        if twice {
            up.queue.push_back((number, message.clone()));
        }
        up.queue.push_back((number, message));
        self.gather_soon();
    }

    pub(super) fn read(&mut self, link: Link) -> Result<(), Broken> {
        let Some(pid) = self.up.get(&link).map(|up| up.speaker.pid) else { return Ok(()) };
        loop {
            let Some(process) = self.processes.get_mut(&pid).filter(|process| !process.paused) else { return Ok(()) };
            let Some(down) = self.down.get_mut(&link).and_then(VecDeque::pop_front) else { return Ok(()) };
            let deeds = match down {
                Down::Welcome => process.welcomed(link),
                Down::Reply(number, reply) => process.hear(number, reply),
                Down::Word(word) => process.told(word),
            };
            self.do_all(pid, deeds)?;
        }
    }
}
