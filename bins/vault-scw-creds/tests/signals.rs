//! Every signal that a process can take is the command's, and none keeps us from giving back what there is.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod world;

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use towpath_sandbox::servers::{Fault, Point, Proxy, Rule};
use world::engine::{CREDS, Engine};
use world::{Ran, World, run, wait_for_lines};

const HOUR: u64 = 3600;

/// Sends a signal by its number as `kill` does, which knows real-time ones too.
async fn send(pid: u32, number: i32) {
    let status = tokio::process::Command::new("sh")
        .args(["-c", &format!("kill -{number} {pid}")])
        .status()
        .await
        .unwrap();
    assert!(status.success(), "signal {number}");
}

/// The tool below the usual signals, whatever whoever runs the tests ignores.
fn exec(world: &World, address: &str, flags: &[&str], script: &str) -> tokio::process::Command {
    let settings = world.tool();
    let mut command = tokio::process::Command::new("env");
    command.env_clear();
    for (name, value) in settings.as_std().get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
        .env("VAULT_ADDR", address)
        .arg("--default-signal")
        .arg(env!("CARGO_BIN_EXE_vault-scw-creds"))
        .arg("exec")
        .args(flags)
        .args(["--", "sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn no_lease_is_left(world: &World) {
    for _ in 0..12000 {
        if world.leases().await.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a lease is left");
}

/// The letter of a process's state, such as `T` for one that is stopped.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..12000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

/// Not KILL and STOP, which nobody can take, nor CHLD; nor those that pause. A shell cannot be told of 32 and 33, which
/// are the C library's.
fn numbers() -> Vec<i32> {
    let pausing = [9, 17, 18, 19, 20, 21, 22];
    (1..32)
        .chain(34..65)
        .filter(|number| !pausing.contains(number))
        .collect()
}

#[tokio::test]
async fn every_signal_that_can_be_taken_reaches_the_command_and_the_lease_ends_with_it() {
    let world = World::start().await;
    let engine = Engine::mount(&world, HOUR, HOUR).await;
    let tokens = world.tokens().await;
    let said = world.path("said");
    let words: Vec<String> = numbers().iter().map(i32::to_string).collect();
    let script = format!(
        "for n in {}; do trap \"echo $n >> {1}\" $n; done; echo ready >> {1}
         while ! [ -e {1}.go ]; do sleep 0.02; done; exit 3",
        words.join(" "),
        said.display()
    );
    let child = exec(&world, &engine.address, &["--dynamic", CREDS], &script)
        .spawn()
        .unwrap();
    let pid = child.id().unwrap();
    wait_for_lines(&said, 1).await;
    let mut expected = vec!["ready".to_owned()];
    for number in numbers() {
        send(pid, number).await;
        expected.push(number.to_string());
        wait_for_lines(&said, expected.len()).await;
    }
    assert_eq!(world.leases().await.len(), 1, "the lease is held all the while");
    std::fs::write(world.path("said.go"), "").unwrap();
    let ran: Ran = child.wait_with_output().await.unwrap().into();
    assert_eq!(ran.code, 3, "{ran:?}");
    let text = std::fs::read_to_string(&said).unwrap();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    no_lease_is_left(&world).await;
    assert_eq!(world.tokens().await, tokens, "a token is left");
    world.stop().await;
}

#[tokio::test]
async fn a_command_that_a_rare_signal_ends_leaves_no_lease() {
    let world = World::start().await;
    let engine = Engine::mount(&world, HOUR, HOUR).await;
    let tokens = world.tokens().await;
    let said = world.path("said");
    let script = format!("ulimit -c 0; echo ready >> {}; exec sleep 1000", said.display());
    // ABRT, SEGV, STKFLT, XCPU, XFSZ, SYS and two that have no names.
    for number in [6, 11, 16, 24, 25, 31, 34, 64] {
        let _ = std::fs::remove_file(&said);
        let child = exec(&world, &engine.address, &["--dynamic", CREDS], &script)
            .spawn()
            .unwrap();
        wait_for_lines(&said, 1).await;
        send(child.id().unwrap(), number).await;
        let ran: Ran = child.wait_with_output().await.unwrap().into();
        assert_eq!(ran.code, 128 + number, "{ran:?}");
        no_lease_is_left(&world).await;
    }
    assert_eq!(world.tokens().await, tokens, "a token is left");
    world.stop().await;
}

#[tokio::test]
async fn the_command_pauses_and_goes_on_with_us() {
    let world = World::start().await;
    let said = world.path("said");
    let script = format!(
        // It waits by itself: a shell that is just starting a program (vfork) does not stop before that has started.
        "mkfifo {0}.go; echo $$ >> {0}; read line < {0}.go; exit 4",
        said.display()
    );
    let child = exec(&world, world.server.address(), &[], &script)
        .spawn()
        .unwrap();
    let tool = child.id().unwrap();
    let shell: u32 = wait_for_lines(&said, 1).await.trim().parse().unwrap();
    for signal in [Signal::TSTP, Signal::TTIN, Signal::TTOU] {
        let pid = Pid::from_raw(i32::try_from(tool).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        until("both are stopped", || {
            state(tool) == Some('T') && state(shell) == Some('T')
        })
        .await;
        kill_process(pid, Signal::CONT).unwrap();
        until("both go on", || {
            state(tool) != Some('T') && state(shell) != Some('T')
        })
        .await;
    }
    // Somebody who stops the command alone wants it to go on alone, too.
    send(shell, 19).await;
    until("the command is stopped", || state(shell) == Some('T')).await;
    assert_ne!(state(tool), Some('T'));
    send(shell, 18).await;
    std::fs::write(world.path("said.go"), "\n").unwrap();
    let ran: Ran = child.wait_with_output().await.unwrap().into();
    assert_eq!(ran.code, 4, "{ran:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_command_that_is_stopped_ends_at_the_deadline_in_order() {
    let world = World::start().await;
    let said = world.path("said");
    let script = format!(
        "trap 'echo end >> {0}; exit 1' TERM; kill -STOP $$; sleep 1000",
        said.display()
    );
    // The time to log in and to start the shell is part of it.
    let flags = ["--timeout", "15s"];
    let ran = run(exec(&world, world.server.address(), &flags, &script)).await;
    assert_eq!(ran.code, 9, "{ran:?}");
    assert_eq!(std::fs::read_to_string(&said).unwrap(), "end\n");
    world.stop().await;
}

#[tokio::test]
async fn a_signal_while_the_token_is_given_back_keeps_the_command_from_starting() {
    let world = World::start().await;
    let tokens = world.tokens().await;
    let mark = world.path("mark");
    let script = format!("touch {}", mark.display());
    // TERM, and one that nobody expects.
    for (number, flags) in [
        (15, &["--inline-auth", "never"][..]),
        (
            24,
            &[
                "--inline-auth",
                "never",
                "--registry-login",
                "rg.fr-par.scw.cloud",
            ],
        ),
    ] {
        let proxy = Proxy::start(world.server.address().trim_start_matches("http://"))
            .await
            .unwrap();
        proxy.add(Rule::on("POST", "/revoke-self", Fault::Hold(Point::Answered)));
        let child = exec(&world, &format!("http://{}", proxy.host()), flags, &script)
            .spawn()
            .unwrap();
        proxy
            .until(|exchanges| exchanges.iter().any(|exchange| exchange.held))
            .await
            .unwrap();
        send(child.id().unwrap(), number).await;
        proxy.clear();
        let ran: Ran = child.wait_with_output().await.unwrap().into();
        assert_eq!(ran.code, 128 + number, "{ran:?}");
        assert!(ran.stderr.contains("about to start the command"), "{ran:?}");
        assert!(!mark.exists(), "the command was started");
        assert_eq!(world.tokens().await, tokens, "a token is left");
        assert_eq!(world::entries(&world.tmp()), [""; 0]);
    }
    world.stop().await;
}
