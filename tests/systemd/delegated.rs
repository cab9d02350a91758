//! systemd 257 under a kernel that has all controllers, with `DelegateSubgroup=`: a daemon that is not root holds its
//! workers to their limits, and so does the next one.

use agentd_testkit::e2e::{Debian, Kernel};

/// The first app takes more than it may in one call; the second goes on.
const SCRIPT: &str = r#"
set -e
mkdir -p /etc/systemd/system/agentd.service.d /etc/agentd
printf '[Service]\nDelegateSubgroup=supervisor\n' >/etc/systemd/system/agentd.service.d/subgroup.conf
agentctl startup >/dev/null
cat >/etc/agentd/agents.toml <<X
[agent.eater]
command = ["sh", "-c", "until [ -e /tmp/go ]; do sleep 0.1; done; exec dd if=/dev/zero of=/dev/null bs=200M count=1"]
cwd = "/tmp"
limits.memory = "64M"
restart.policy = "never"
[agent.held]
command = ["sleep", "100000"]
cwd = "/tmp"
limits = { memory = "64M", pids = 20, cpu = "50%" }
X
agentctl start /etc/agentd/agents.toml 2>&1
pid_of() { agentctl ls --json | tr , '\n' | grep -A99 "\"$1\"" | grep -m 1 '"pid"' | tr -dc 0-9; }
held=$(pid_of held)
cgroup=/sys/fs/cgroup$(cut -d: -f3 /proc/$held/cgroup)
echo "limits $(cat $cgroup/memory.max $cgroup/pids.max $cgroup/cpu.max | tr '\n' ' ')"
touch /tmp/go
for _ in $(seq 300); do agentctl status eater | grep -q running || break; sleep 0.1; done
agentctl status eater
systemctl show agentd -p Result -p NRestarts -p ActiveState
daemon=$(systemctl show agentd --value -p MainPID)
kill -9 $daemon
for _ in $(seq 300); do [ "$(systemctl show agentd --value -p MainPID)" = $daemon ] || agentctl ls >/dev/null 2>&1 && break; sleep 0.1; done
echo "same $(test "$(pid_of held)" = $held && echo yes)"
echo "limits $(cat $cgroup/memory.max $cgroup/pids.max $cgroup/cpu.max | tr '\n' ' ')"
agentctl stop held
agentctl start held 2>&1
cgroup=/sys/fs/cgroup$(cut -d: -f3 /proc/$(pid_of held)/cgroup)
echo "limits $(cat $cgroup/memory.max $cgroup/pids.max $cgroup/cpu.max | tr '\n' ' ')"
"#;

#[test]
fn where_controllers_are_delegated_limits_hold_and_one_workers_end_by_them_is_not_the_services() {
    let Some(kernel) = Kernel::find(env!("CARGO_BIN_EXE_agentd")) else { return };
    let Some(output) = kernel.boot(Debian::Thirteen, env!("CARGO_BIN_EXE_agentd"), SCRIPT) else { return };
    assert_eq!(output.code, Some(0), "{output:#?}");
    let said = &output.stdout;
    // Before the daemon's death, after it, and for a worker that the next daemon started.
    assert_eq!(said.matches("limits 67108864 20 50000 100000").count(), 3, "{said}");
    assert!(said.contains("ran out of memory: the kernel killed it at limits.memory = 64 MiB"), "{said}");
    for line in ["Result=success", "NRestarts=0", "ActiveState=active", "same yes"] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
}
