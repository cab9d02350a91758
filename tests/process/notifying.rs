//! The notify socket with real senders: a script of the standard library alone, and systemd's own tool.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use agentd::notify::{
    Admission, Datagram, FdName, FdStore, Notice, NotifySocket, Standing, TaskId, TaskOutcome, Unbelieved, judge,
};
use agentd::process::plan::ExecPlan;
use agentd::process::tree::Tree;
use agentd_core::id::Pid;
use camino::Utf8PathBuf;

use crate::stage::{DEADLINE, OnStage, identity, plan, python, start};

const PREAMBLE: &str = "
import os, socket, subprocess, sys, array
def say(text, *fds):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.connect(os.environ['NOTIFY_SOCKET'])
    s.sendmsg([text.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))] if fds else [])
";

struct Stage {
    on_stage: OnStage,
    tree: Tree,
    socket: NotifySocket,
    _dir: tempfile::TempDir,
}

async fn notifying(mut plan: ExecPlan) -> Stage {
    let dir = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(dir.path().join("notify")).unwrap();
    let socket = NotifySocket::bind(&path, None).unwrap();
    let identity = identity();
    plan.env.push(("NOTIFY_SOCKET".into(), path.into()));
    plan.env.extend(identity.variables());
    let on_stage = start(&plan).await.unwrap();
    let leader = Pid(on_stage.pid.as_raw_nonzero().get().unsigned_abs());
    let tree = Tree::of_child(identity, leader, None);
    Stage { on_stage, tree, socket, _dir: dir }
}

fn script(body: &str) -> ExecPlan {
    python(&format!("{PREAMBLE}{body}"))
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.tree.kill().expect("a tree of the test's own can be killed");
    }
}

impl Stage {
    async fn next(&self) -> Datagram {
        tokio::time::timeout(DEADLINE, self.socket.recv()).await.expect("a datagram comes in time").unwrap()
    }

    fn standing(&self, datagram: &Datagram) -> Result<Standing, Unbelieved> {
        judge(datagram.sender, &self.tree, rustix::process::getuid().as_raw())
    }
}

#[tokio::test]
async fn a_script_without_any_library_says_all_it_has_to_say() {
    let mut stage = notifying(script(
        "
say('READY=1\\nSTATUS=serving\\nMAINPID=%d' % os.getpid())
say('X_AGENTD_TASK_BEGIN=t1 chat')
say('X_AGENTD_TASK_END=t1 error\\nX_AGENTD_DRAIN=1')
a, b = socket.socketpair()
b.send(b'kept')
say('FDSTORE=1\\nFDNAME=session', a.fileno())
sys.stdin.read()
say('STOPPING=1')
",
    ))
    .await;
    let id = TaskId::new("t1").unwrap();
    let first = stage.next().await;
    assert_eq!(first.messages, [Notice::Ready, Notice::Status("serving".into()), Notice::MainPid(stage.tree.leader())]);
    let begun = stage.next().await;
    assert_eq!(begun.messages, [Notice::TaskBegin { id: id.clone(), kind: TaskId::new("chat") }]);
    assert_eq!(stage.next().await.messages, [Notice::TaskEnd { id, outcome: TaskOutcome::Error }, Notice::Drain]);

    let keep = stage.next().await;
    let [Notice::StoreFds { name, poll }] = keep.messages.as_slice() else { panic!("{:?}", keep.messages) };
    let mut store = FdStore::default();
    for fd in keep.fds {
        assert_eq!(store.add(name.clone(), fd, *poll), Admission::Accepted);
    }
    assert_eq!(stage.next().await.messages, [Notice::Stopping]);
    assert_eq!(stage.on_stage.ending(), 0);

    let (name, fd) = store.list().next().unwrap();
    assert_eq!(*name, FdName::new("session").unwrap());
    let mut kept = std::os::unix::net::UnixStream::from(fd.try_clone_to_owned().unwrap());
    let mut text = String::new();
    kept.read_to_string(&mut text).unwrap();
    assert_eq!(text, "kept", "what its predecessor had not read yet waits for the next worker");
}

#[tokio::test]
async fn the_worker_and_its_children_are_believed_and_others_are_not() {
    let program = r#"
say('STATUS=leader')
child = subprocess.Popen([sys.executable, '-c', sys.argv[1] + "say('STATUS=child')\nsys.stdin.read()"],
                         stdin=subprocess.PIPE, start_new_session=True)
say('STATUS=waits')
import signal
signal.pause()
"#;
    let mut plan = script(program);
    plan.argv.push(PREAMBLE.to_owned());
    let stage = notifying(plan).await;
    for _ in 0..3 {
        let datagram = stage.next().await;
        assert_eq!(stage.standing(&datagram), Ok(Standing::Member), "{:?}", datagram.messages);
    }
    let outsider = std::os::unix::net::UnixDatagram::unbound().unwrap();
    outsider.send_to(b"READY=1", stage.socket.path()).unwrap();
    let me = Pid(std::process::id());
    assert_eq!(stage.standing(&stage.next().await), Err(Unbelieved::Outsider(me)));
}

#[tokio::test]
async fn a_sender_that_has_ended_before_it_is_heard_is_believed_by_its_user() {
    let program = r#"
subprocess.run([sys.executable, '-c', sys.argv[1] + "say('READY=1')"], check=True)
say('STATUS=the one before has ended')
"#;
    let mut plan = script(program);
    plan.argv.push(PREAMBLE.to_owned());
    let mut stage = notifying(plan).await;
    assert_eq!(stage.on_stage.ending(), 0);
    for _ in 0..2 {
        let datagram = stage.next().await;
        assert_eq!(stage.standing(&datagram), Ok(Standing::Departed));
    }
    assert!(stage.socket.try_recv().unwrap().is_none());
}

#[tokio::test]
async fn a_barrier_holds_its_sender_until_the_datagram_is_dropped() {
    let mut stage = notifying(script(
        "
r, w = os.pipe()
say('BARRIER=1', w)
os.close(w)
os.read(r, 1)
say('STATUS=released')
",
    ))
    .await;
    let barrier = stage.next().await;
    assert_eq!(barrier.messages, [Notice::Barrier]);
    assert_eq!(barrier.fds.len(), 1);
    let early = tokio::time::timeout(Duration::from_millis(50), stage.socket.recv()).await;
    assert!(early.is_err(), "it waits");
    drop(barrier);
    assert_eq!(stage.next().await.messages, [Notice::Status("released".into())]);
    assert_eq!(stage.on_stage.ending(), 0);
}

#[tokio::test]
async fn systemds_own_tool_is_understood_from_a_shell() {
    let installed = Command::new("systemd-notify").arg("--version").stdout(Stdio::null()).status();
    if !installed.is_ok_and(|status| status.success()) {
        return println!("not tested: systemd-notify is not installed");
    }
    let line = "systemd-notify --ready --status='warm and ready' && systemd-notify X_AGENTD_SAFE=t9";
    let mut stage = notifying(plan(&["/bin/sh", "-c", line])).await;
    let mut heard = Vec::new();
    // Each call ends with a barrier: it waits until its datagrams were received and dropped.
    while heard.iter().filter(|&notice| *notice == Notice::Barrier).count() < 2 {
        let datagram = stage.next().await;
        stage.standing(&datagram).unwrap();
        heard.extend(datagram.messages);
    }
    let expected = [
        Notice::Ready,
        Notice::Status("warm and ready".into()),
        Notice::Barrier,
        Notice::TaskSafe(TaskId::new("t9").unwrap()),
        Notice::Barrier,
    ];
    assert_eq!(heard, expected);
    assert_eq!(stage.on_stage.ending(), 0);
}
