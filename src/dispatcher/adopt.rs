//! Taking over workers that an earlier supervisor left running, and main processes that workers name.
//!
//! A process is only ours if it is the very one that was recorded: pidfd first, then its start time, then everything
//! else, so that a reused number never passes. It is not our child any more: its end comes through its pidfd, and its
//! exit status from the kernel where that still tells (Linux 6.15), else it is "unknown", and said so.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use agentd_core::event::{Exit, WorkerEvent};
use agentd_core::id::{Launch, Pid};
use agentd_core::worker::{KernelProcess, Worker};
use jiff::Timestamp;
use rustix::process::{PidfdFlags, pidfd_open};

use super::input::Input;
use super::launch::listen;
use super::restore::Takeover;
use super::shell::{ProcessShell, Start};
use super::{Child, Dispatcher};
use crate::causes::in_full;
use crate::config::LogSink;
use crate::keeper::Held;
use crate::logs::fifo;
use crate::logs::layout::{StreamKind, fifo_path};
use crate::logs::thread::{Inlet, Stream, StreamId};
use crate::notify::NotifySocket;
use crate::process::stat::{self, StartTime};
use crate::process::sys::{self, ReadableFd};
use crate::process::tree::{Identity, Tree};
use crate::revision::RevisionRecord;

/// How long its reaper may take before the exit status is given up as unknown.
const REAPED_WITHIN: Duration = Duration::from_millis(100);

impl Dispatcher {
    /// Takes over the process of a worker. False when it is not there any more.
    pub(super) fn adopt(&mut self, worker: &Worker, kernel: KernelProcess, taken: &mut Takeover) -> bool {
        let Some(launch) = worker.launch() else { return false };
        let Some(record) = self.apps.get(&worker.id.app).and_then(|app| app.revisions.get(&worker.revision)).cloned()
        else {
            return false;
        };
        let Some(pidfd) = hold_process(kernel) else { return false };
        let identity = Identity { instance: Arc::clone(&self.instance), launch };
        let cgroup = self.cgroups.as_ref().and_then(|all| all.of_process(kernel.pid, launch));
        let tree = Tree::recorded(identity, kernel.pid, StartTime(kernel.start_time), cgroup);
        let notify = match self.adopt_notify(launch, taken) {
            Ok(notify) => Arc::new(notify),
            Err(why) => {
                tracing::error!(worker = %worker.id, why, "a worker cannot be heard; it is left alone and not adopted");
                return false;
            }
        };
        let streams = self.adopt_streams(launch, worker, &record, taken);
        let streams = self.attach(streams);
        let mut listeners = vec![listen(Arc::clone(&notify), launch, self.inputs.clone())];
        listeners.extend(await_end(&pidfd, kernel, launch, self.inputs.clone()));
        let gauge = self.tell_born(launch, &worker.id, &record);
        self.tell_standing(launch, worker);
        let shell = ProcessShell {
            worker: worker.id.clone(),
            lane: worker.lane,
            record,
            tree,
            pidfd,
            main: kernel,
            start: Start::Running,
            exit: None,
            notify,
            started_at: worker
                .state
                .process()
                .map_or_else(Timestamp::now, |process| super::view::wall(process.started_at)),
            listeners,
            prober: None,
            drain: None,
            streams,
            gauge,
            stay: 0,
            told: std::collections::HashMap::new(),
            reloading: None,
            status_text: None,
        };
        self.processes.insert(launch, shell);
        self.children.insert(kernel.pid, Child::Worker(launch));
        true
    }

    fn adopt_notify(&self, launch: Launch, taken: &mut Takeover) -> Result<NotifySocket, String> {
        let path = self.home.run.join("notify").join(launch.to_string());
        match taken.held.remove(&Held::Notify { launch }) {
            Some(fd) => NotifySocket::adopt(fd, &path),
            None => NotifySocket::bind(&path, None),
        }
        .map_err(|error| in_full(&error))
    }

    fn adopt_streams(
        &mut self,
        launch: Launch,
        worker: &Worker,
        record: &RevisionRecord,
        taken: &mut Takeover,
    ) -> Vec<Stream> {
        match record.config.log.sink {
            LogSink::Fifo | LogSink::Journald => {}
            LogSink::File | LogSink::None => return Vec::new(),
        }
        let mut streams = Vec::new();
        for stream in StreamKind::BOTH {
            let name = fifo_path(&self.home.run, &worker.id.app, worker.id.slot, launch, stream);
            let kept = taken.held.remove(&Held::Fifo { launch, stream });
            let fifo = match kept.map_or_else(|| fifo::reopen(&name), Ok) {
                Ok(fifo) => fifo,
                Err(error) => {
                    tracing::error!(worker = %worker.id, error = in_full(&error), "its output is not being read");
                    continue;
                }
            };
            let id = StreamId(self.next_stream);
            self.next_stream += 1;
            let to = self.log_target(&worker.id, launch, record, stream);
            streams.push(Stream { id, fifo: Inlet::new(fifo), fifo_path: Some(name), launch, to });
        }
        streams
    }

    /// A worker ended while nobody watched: what it had printed goes to its log, then its end is told.
    pub(super) fn last_lines_of(&mut self, worker: &Worker, exit: Exit, taken: &mut Takeover) {
        let Some(launch) = worker.launch() else { return };
        let record = self.apps.get(&worker.id.app).and_then(|app| app.revisions.get(&worker.revision)).cloned();
        let streams = record.map_or_else(Vec::new, |record| self.adopt_streams(launch, worker, &record, taken));
        let streams = self.attach(streams);
        let written = self.finish(&streams);
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            if let Some(written) = written {
                // A log thread that is gone has nothing more to write.
                let _ = written.await;
            }
            let _ = inputs.send(Input::Worker(launch, WorkerEvent::Exited { exit }));
        });
    }

    /// An adopted process has ended.
    pub(super) fn gone(&mut self, launch: Launch) {
        let Some(process) = self.processes.get_mut(&launch) else { return };
        if process.exit.is_some() {
            return;
        }
        let main = process.main;
        let status = status_of(&process.pidfd, main.pid, StartTime(main.start_time));
        process.exit = Some(status.map_or(Exit::Unknown, exit_of));
        self.children.remove(&main.pid);
        self.process_ended(launch);
    }

    /// Another process of the worker's tree is its main one from now on (`MAINPID=`): only the main one's end is the
    /// worker's end. As long as its parent lives it is no child of ours, so it is watched like an adopted one.
    pub(super) fn main_changed(&mut self, launch: Launch, pid: Pid) {
        let Some(process) = self.processes.get_mut(&launch) else { return };
        if process.main.pid == pid {
            return;
        }
        let held = stat::start_time(pid).filter(|_| process.tree.contains(pid)).and_then(|started| {
            let main = KernelProcess { pid, start_time: started.0 };
            Some((main, hold_process(main)?))
        });
        let Some((main, pidfd)) = held else {
            tracing::warn!(worker = %process.worker, %pid, "MAINPID names a process that is not the worker's");
            return;
        };
        // The first hears it; whatever follows watched for the end of the one before.
        process.listeners.drain(1..).for_each(|watch| watch.abort());
        process.listeners.extend(await_end(&pidfd, main, launch, self.inputs.clone()));
        process.pidfd = pidfd;
        let before = std::mem::replace(&mut process.main, main);
        // Where it was reaped already, its number may be another child's by now.
        if matches!(self.children.get(&before.pid), Some(Child::Worker(of)) if *of == launch) {
            self.children.remove(&before.pid);
        }
        self.children.insert(pid, Child::Worker(launch));
    }
}

/// A hold on exactly this process; none when it is gone, or waits to be reaped.
pub(super) fn hold_process(kernel: KernelProcess) -> Option<OwnedFd> {
    let number = i32::try_from(kernel.pid.0).ok().and_then(rustix::process::Pid::from_raw)?;
    let pidfd = pidfd_open(number, PidfdFlags::empty()).ok()?;
    let there = stat::Stat::of(Pid(kernel.pid.0))?;
    (there.started == StartTime(kernel.start_time) && !there.is_zombie).then_some(pidfd)
}

/// Tells when an adopted process has ended, as soon as its exit status can be known or will not be.
fn await_end(
    pidfd: &OwnedFd,
    kernel: KernelProcess,
    launch: Launch,
    inputs: tokio::sync::mpsc::UnboundedSender<Input>,
) -> Option<tokio::task::AbortHandle> {
    let watched = pidfd.try_clone().and_then(ReadableFd::register);
    let watched = match watched {
        Ok(watched) => watched,
        Err(error) => {
            tracing::error!(%launch, %error, "an adopted worker's end would not be noticed");
            return None;
        }
    };
    let (leader, started) = (kernel.pid, StartTime(kernel.start_time));
    let task = tokio::spawn(async move {
        // Readable means ended; there is nothing to read.
        let _ = watched.read_with(|_| Ok(())).await;
        let asked = tokio::time::Instant::now();
        while status_of(&watched, leader, started).is_none() && asked.elapsed() < REAPED_WITHIN {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let _ = inputs.send(Input::Gone(launch));
    });
    Some(task.abort_handle())
}

/// The wait status of an ended process that is not our child: from the kernel's memory of it once it was reaped, else
/// from what is left of it while it was not.
fn status_of(pidfd: &impl AsFd, pid: Pid, started: StartTime) -> Option<i32> {
    sys::reaped_status(pidfd.as_fd()).or_else(|| {
        let zombie = stat::Stat::of(pid).filter(|there| there.started == started && there.is_zombie)?;
        Some(zombie.wait_status)
    })
}

/// How a process ended that nobody has reaped yet.
pub(super) fn exit_of_remains(kernel: KernelProcess) -> Option<Exit> {
    let remains = stat::Stat::of(kernel.pid)?;
    let is_it = remains.started == StartTime(kernel.start_time) && remains.is_zombie;
    is_it.then(|| exit_of(remains.wait_status))
}

/// A wait status in words.
fn exit_of(status: i32) -> Exit {
    match status & 0x7f {
        0 => Exit::Code((status >> 8) & 0xff),
        signal => Exit::Signal(signal),
    }
}
