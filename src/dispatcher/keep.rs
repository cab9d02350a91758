//! What the keeper holds for us, brought up to date with every socket, FIFO and notify socket that is made or given
//! up; and another keeper when the present one is gone.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use agentd_core::id::{AppName, Lane, Launch};
use camino::Utf8PathBuf;

use super::Dispatcher;
use super::input::Input;
use crate::causes::in_full;
use crate::keeper::{COMMAND, Held, Keeper, KeeperError};
use crate::logs::fifo;
use crate::logs::layout::{StreamKind, fifo_path};
use crate::logs::thread::Stream;
use crate::notify::NotifySocket;
use crate::process::account::Account;
use crate::process::plan::{ExecPlan, Secrets};
use crate::process::spawn::{Company, SpawnFds, spawn};
use crate::process::sys::ReadableFd;

impl Dispatcher {
    /// Starts a keeper and gives it everything there is. Without one the fleet runs all the same; it only would not
    /// outlive us whole.
    pub(super) fn start_keeper(&mut self) {
        let path = Keeper::path(&self.home.run);
        let started = self
            .spawn_keeper(&path)
            .and_then(|process| Keeper::find_started(&path, process).map_err(|error| in_full(&error)));
        match started {
            Ok(keeper) => {
                self.watch_keeper(&keeper);
                self.keeper = Some(keeper);
                self.give_everything();
            }
            Err(why) => {
                tracing::error!(why, "there is no keeper: if the daemon dies, its sockets die with it");
                self.notes.push(format!("there is no keeper: {why}"));
            }
        }
    }

    fn spawn_keeper(&mut self, path: &camino::Utf8Path) -> Result<OwnedFd, String> {
        let socket = Keeper::make_socket(path).map_err(|error| in_full(&error))?;
        let null = std::fs::File::options()
            .write(true)
            .open("/dev/null")
            .map_err(|error| format!("opening /dev/null: {error}"))?;
        // For whoever reads a process list; the link works where the file was replaced or removed meanwhile.
        let own = std::env::current_exe().ok().filter(|path| path.exists());
        let program = own.and_then(|path| Utf8PathBuf::from_path_buf(path).ok()).unwrap_or("/proc/self/exe".into());
        let plan = ExecPlan {
            argv: vec![program.into_string(), COMMAND.to_owned()],
            cwd: "/".into(),
            env: Vec::new(),
            umask: 0o077,
            limits: Vec::new(),
            soft_files: None,
            cgroup: None,
            listen_names: vec!["keeper".to_owned()],
            listen_pid: true,
            node_channel: false,
            stdin: false,
            account: Account::default(),
            secrets: Secrets::default(),
        };
        let fds = SpawnFds { stdout: null.as_fd(), stderr: null.as_fd(), stdin: None, listeners: vec![socket.as_fd()] };
        spawn(&mut self.launcher, &plan, &fds, Company::Others)
            .map(|child| child.pidfd)
            .map_err(|error| in_full(&error))
    }

    /// Notices its end by the end of the connection, whoever's child it is.
    pub(super) fn watch_keeper(&mut self, keeper: &Keeper) {
        self.keepers += 1;
        let (inputs, nth) = (self.inputs.clone(), self.keepers);
        let watched = keeper.death().and_then(ReadableFd::register);
        match watched {
            Ok(death) => drop(tokio::spawn(async move {
                // Whatever comes: it never speaks unasked.
                let _ = death.read_with(|_| Ok(())).await;
                let _ = inputs.send(Input::KeeperGone { nth });
            })),
            Err(error) => tracing::warn!(%error, "the keeper's end would not be noticed"),
        }
    }

    /// The `nth` keeper is gone. An earlier one than the present one was given up already.
    pub(super) fn keeper_gone(&mut self, nth: u64) {
        if nth != self.keepers || !matches!(self.end, super::End::Open) {
            return;
        }
        tracing::warn!("the keeper is gone; starting another");
        self.keeper = None;
        for app in self.apps.values_mut() {
            app.kept.clear();
        }
        self.start_keeper();
    }

    pub(super) fn dismiss_keeper(&mut self) {
        if let Some(keeper) = self.keeper.take()
            && let Err(error) = keeper.end()
        {
            tracing::warn!(error = in_full(&error), "the keeper was not told to end");
        }
    }

    fn give_everything(&mut self) {
        for name in self.apps.keys().cloned().collect::<Vec<AppName>>() {
            self.keep_lanes(&name);
        }
        let Some(keeper) = &self.keeper else { return };
        for (&launch, process) in &self.processes {
            let mut given = Ok(());
            for stream in StreamKind::BOTH {
                let path = fifo_path(&self.home.run, &process.worker.app, process.worker.slot, launch, stream);
                // Sinks without a FIFO have none to keep.
                if let Ok(fd) = fifo::reopen(&path) {
                    given = given.and(keeper.hold(&[(Held::Fifo { launch, stream }, fd.as_fd())]));
                }
            }
            given = given.and(keeper.hold(&[(Held::Notify { launch }, process.notify.as_fd())]));
            if let Err(error) = given {
                tracing::warn!(%launch, error = in_full(&error), "the keeper does not hold what a worker needs");
            }
        }
    }

    /// Gives systemd what it does not hold yet. After a restart of ours it mostly holds all of it.
    pub(super) fn store_everything(&mut self) {
        for (name, app) in &self.apps {
            let sockets = app.addresses.sockets();
            let given = sockets
                .iter()
                .map(|(addr, lane, fd)| (Held::Lane { app: name.clone(), lane: Lane(*lane), addr: addr.clone() }, *fd));
            self.systemd.store(&given.collect::<Vec<_>>());
        }
        for (&launch, process) in &self.processes {
            if !self.systemd.lacks(&Held::Notify { launch }) {
                continue;
            }
            self.systemd.store(&[(Held::Notify { launch }, process.notify.as_fd())]);
            for stream in StreamKind::BOTH {
                let path = fifo_path(&self.home.run, &process.worker.app, process.worker.slot, launch, stream);
                // Sinks without a FIFO have none to keep.
                if let Ok(fd) = fifo::reopen(&path) {
                    self.systemd.store(&[(Held::Fifo { launch, stream }, fd.as_fd())]);
                }
            }
        }
    }

    /// Gives the keeper the app's sockets that it has not, and lets it let go of those that are gone.
    pub(super) fn keep_lanes(&mut self, name: &AppName) {
        let Some(app) = self.apps.get_mut(name) else { return };
        let sockets = app.addresses.sockets();
        let present: BTreeSet<_> = sockets.iter().map(|(addr, lane, _)| (addr.clone(), *lane)).collect();
        if present == app.kept {
            return;
        }
        let named = |addr: &crate::sockets::ListenAddr, lane: u32| Held::Lane {
            app: name.clone(),
            lane: Lane(lane),
            addr: addr.clone(),
        };
        let new: Vec<(Held, BorrowedFd<'_>)> = sockets
            .iter()
            .filter(|(addr, lane, _)| !app.kept.contains(&(addr.clone(), *lane)))
            .map(|(addr, lane, fd)| (named(addr, *lane), *fd))
            .collect();
        let gone: Vec<Held> = app.kept.difference(&present).map(|(addr, lane)| named(addr, *lane)).collect();
        self.systemd.store(&new);
        self.systemd.unstore(&gone);
        let Some(keeper) = &self.keeper else { return };
        let told = keeper.hold(&new).and_then(|()| if gone.is_empty() { Ok(()) } else { keeper.release(&gone) });
        app.kept = present;
        self.heard(told);
    }

    pub(super) fn keep_process(&mut self, launch: Launch, notify: &NotifySocket, streams: &[Stream]) {
        let mut given = vec![(Held::Notify { launch }, notify.as_fd())];
        // Streams are opened in the order of their kinds.
        given.extend(
            StreamKind::BOTH
                .into_iter()
                .zip(streams)
                .map(|(stream, opened)| (Held::Fifo { launch, stream }, opened.fifo.as_fd())),
        );
        self.systemd.store(&given);
        let Some(keeper) = &self.keeper else { return };
        let told = keeper.hold(&given);
        self.heard(told);
    }

    pub(super) fn release_process(&mut self, launch: Launch) {
        let fifos = StreamKind::BOTH.map(|stream| Held::Fifo { launch, stream });
        let names: Vec<Held> = fifos.into_iter().chain([Held::Notify { launch }]).collect();
        self.systemd.unstore(&names);
        let Some(keeper) = &self.keeper else { return };
        let told = keeper.release(&names);
        self.heard(told);
    }

    /// Nothing of the app is left.
    pub(super) fn forget(&mut self, name: &AppName) {
        self.abort_cut(name, "the app was deleted");
        self.forget_releases(name);
        self.forget_hooks(name);
        self.owed.forget(name);
        let Some(mut app) = self.apps.remove(name) else { return };
        app.addresses.retain(|_| false);
        self.remember_order(name);
        let names: Vec<Held> =
            app.kept.into_iter().map(|(addr, lane)| Held::Lane { app: name.clone(), lane: Lane(lane), addr }).collect();
        self.systemd.unstore(&names);
        if let Some(keeper) = &self.keeper
            && !names.is_empty()
        {
            let told = keeper.release(&names);
            self.heard(told);
        }
    }

    /// A keeper that does not take a word is of no use, and what it holds is in the way: it is ended, and another one
    /// started.
    fn heard(&mut self, told: Result<(), KeeperError>) {
        let Err(error) = told else { return };
        tracing::warn!(error = in_full(&error), "the keeper does not answer");
        if let Some(keeper) = self.keeper.take() {
            keeper.kill();
        }
        let _ = self.inputs.send(Input::KeeperGone { nth: self.keepers });
    }
}
