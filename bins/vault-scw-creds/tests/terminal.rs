//! The terminal is the command's while it needs it, and whoever's it was afterwards.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod world;

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin};
use world::{World, wait_for_lines};

/// A terminal with a shell in it. What is typed there and what the programs in it note are all that is known of it.
struct Desk {
    _terminal: Child,
    keyboard: ChildStdin,
    notes: PathBuf,
}

impl Desk {
    /// `script` gives `shell` a terminal of its own.
    fn with(world: &World, shell: &str) -> Desk {
        let settings = world.tool();
        let mut command = tokio::process::Command::new("script");
        command.env_clear();
        for (name, value) in settings.as_std().get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        let notes = world.path("notes");
        let mut terminal = command
            .env("SHELL", "/bin/sh")
            .env("HISTFILE", "/dev/null")
            .env("NOTES", &notes)
            .env("TOOL", env!("CARGO_BIN_EXE_vault-scw-creds"))
            .args(["-qec", shell, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("script, of util-linux, is there");
        let keyboard = terminal.stdin.take().unwrap();
        Desk {
            _terminal: terminal,
            keyboard,
            notes,
        }
    }

    async fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).await.unwrap();
    }

    /// Waits for so many notes and gives them back.
    async fn notes(&self, count: usize) -> Vec<String> {
        let text = wait_for_lines(&self.notes, count).await;
        text.lines().map(str::to_owned).collect()
    }
}

/// A program in a file, since a shell's own quotes are enough for a test to read.
fn program(world: &World, text: &str) -> String {
    let path = world.path("program.sh");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn the_terminal_is_the_commands_while_it_runs() {
    let world = World::start().await;
    // Were its group not in the foreground, reading would stop it, and Ctrl-C would not reach it.
    let inner = program(
        &world,
        "trap 'echo interrupted >> $NOTES; exit 5' INT; echo ready >> $NOTES; read line; echo \"read $line\" >> $NOTES
         while :; do sleep 0.02; done\n",
    );
    // The shell around it wants its terminal back afterwards.
    let outer =
        format!("$TOOL exec -- sh {inner}; echo code $? >> $NOTES; read line; echo \"then $line\" >> $NOTES");
    let mut desk = Desk::with(&world, &outer);
    desk.notes(1).await;
    desk.type_in("hello\n").await;
    desk.notes(2).await;
    desk.type_in("\x03").await;
    desk.notes(4).await;
    desk.type_in("bye\n").await;
    assert_eq!(
        desk.notes(5).await,
        ["ready", "read hello", "interrupted", "code 5", "then bye"]
    );
    world.stop().await;
}

#[tokio::test]
async fn a_pipeline_shares_the_terminal_until_the_command_asks_there() {
    let world = World::start().await;
    let inner = program(
        &world,
        "echo ready >> $NOTES; read line; echo \"read $line\" >> $NOTES; read line </dev/tty; echo \"tty $line\" >> $NOTES\n",
    );
    let outer = format!("$TOOL exec -- sh {inner} | cat; read line; echo \"then $line\" >> $NOTES");
    let mut desk = Desk::with(&world, &outer);
    for (count, line) in ["hello\n", "again\n", "bye\n"].iter().enumerate() {
        desk.notes(count + 1).await;
        desk.type_in(line).await;
    }
    assert_eq!(
        desk.notes(4).await,
        ["ready", "read hello", "tty again", "then bye"]
    );
    world.stop().await;
}

#[tokio::test]
async fn ctrl_z_gives_the_shell_its_terminal_and_fg_the_command() {
    let world = World::start().await;
    let inner = program(
        &world,
        "trap 'echo winch >> $NOTES' WINCH; echo ready >> $NOTES; read line; echo \"read $line\" >> $NOTES\n",
    );
    let mut desk = Desk::with(&world, "bash --norc --noprofile -i");
    desk.type_in(&format!("$TOOL exec -- sh {inner}; echo \"code $?\" >> $NOTES\n"))
        .await;
    desk.notes(1).await;
    desk.type_in("\x1a").await;
    // What bash says of a job that was stopped: 128 and the signal.
    let notes = desk.notes(2).await;
    assert!(["code 147", "code 148"].contains(&notes[1].as_str()), "{notes:?}");
    desk.type_in("echo prompt >> $NOTES\n").await;
    desk.notes(3).await;
    desk.type_in("fg; echo \"ended with $?\" >> $NOTES\n").await;
    desk.type_in("hello\n").await;
    assert_eq!(desk.notes(5).await[2..], ["prompt", "read hello", "ended with 0"]);
    world.stop().await;
}

#[tokio::test]
async fn a_command_that_ends_behind_leaves_the_terminal_to_the_shell() {
    let world = World::start().await;
    let inner = program(
        &world,
        // It waits by itself: a shell that is just starting a program (vfork) does not stop before that has started.
        "mkfifo $NOTES.go; echo ready >> $NOTES; read line < $NOTES.go; echo end >> $NOTES\n",
    );
    let mut desk = Desk::with(&world, "bash --norc --noprofile -i");
    desk.type_in(&format!("$TOOL exec -- sh {inner}; echo stopped >> $NOTES\n"))
        .await;
    desk.notes(1).await;
    desk.type_in("\x1a").await;
    desk.notes(2).await;
    desk.type_in("bg; echo behind >> $NOTES\n").await;
    desk.notes(3).await;
    // The shell waits for a line, not for the job, when that ends.
    desk.type_in("echo > $NOTES.go; read line; echo \"line $line\" >> $NOTES\n")
        .await;
    desk.notes(4).await;
    // Its path is this world's alone.
    let runs = || {
        std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(&inner)
        })
    };
    for _ in 0..12000 {
        if !runs() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(!runs(), "the command goes on");
    desk.type_in("typed\n").await;
    desk.type_in("wait; echo alive >> $NOTES\n").await;
    assert_eq!(
        desk.notes(6).await,
        ["ready", "stopped", "behind", "end", "line typed", "alive"]
    );
    world.stop().await;
}
