//! Lending the terminal to a supervised command.
//!
//! A command in a group of its own may neither read the terminal nor be reached by Ctrl-C unless its group is the
//! terminal's foreground group. So it becomes that, and afterwards we become it again. When standard input and output
//! are both the terminal, it has it from the start. Otherwise the other programs of our group, in a pipeline, may need
//! the terminal more, so that the command gets it when it first asks for something there, such as a password.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use rustix::process::{Pid, getpgrp, getpid};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// The controlling terminal. Dropping takes it back if it is lent.
#[derive(Debug)]
pub(super) struct Terminal {
    device: File,
    /// Whether the command is to have it before it asks.
    from_the_start: bool,
    lent: bool,
}

impl Terminal {
    /// The terminal, if we have one.
    pub(super) fn ours() -> Option<Self> {
        let device = File::options().read(true).write(true).open("/dev/tty").ok()?;
        Some(Terminal {
            device,
            from_the_start: io::stdin().is_terminal() && io::stdout().is_terminal(),
            lent: false,
        })
    }

    /// Makes the child take the terminal before its program starts, so that the program never sees it otherwise; if it is
    /// ours to lend.
    #[allow(unsafe_code)]
    pub(super) fn lend_at_start(&mut self, command: &mut tokio::process::Command) {
        if !self.from_the_start || !self.is_with(getpgrp()) {
            return;
        }
        self.lent = true;
        let device = self.device.as_raw_fd();
        // SAFETY: the closure runs between fork and exec and makes system calls only, all async-signal-safe. The
        // descriptor is open there: `self` outlives the spawning, and close-on-exec comes later.
        unsafe {
            command.pre_exec(move || set_foreground(BorrowedFd::borrow_raw(device), getpid()));
        }
    }

    /// We were told to go on, in the foreground or behind: gives the terminal to `group` once more, if it had it and it
    /// is ours now.
    pub(super) fn resume(&mut self, group: Pid) {
        if self.is_with(getpgrp()) {
            if self.from_the_start {
                self.lend(group);
            }
        } else if !self.is_with(group) {
            // Whoever has it now did not have it from us.
            self.lent = false;
        }
    }

    /// Gives the terminal to `group`, which needs it now. False when it is not ours to lend.
    pub(super) fn lend(&mut self, group: Pid) -> bool {
        if !self.is_with(getpgrp()) {
            return false;
        }
        // A group that is gone needs no terminal.
        self.lent = set_foreground(self.device.as_fd(), group).is_ok();
        self.lent
    }

    /// Whether this group has the terminal.
    pub(super) fn is_with(&self, group: Pid) -> bool {
        tcgetpgrp(&self.device).is_ok_and(|foreground| foreground == group)
    }

    /// Becomes the foreground group again, if the terminal is lent: a shell that has put us behind meanwhile keeps it.
    pub(super) fn take_back(&mut self) {
        if std::mem::take(&mut self.lent) {
            // A terminal that was hung up is nobody's.
            let _ = set_foreground(self.device.as_fd(), getpgrp());
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.take_back();
    }
}

/// Sets the foreground group from whichever group. The kernel stops a background process that does so, by TTOU, unless
/// that is blocked (tcsetpgrp(3)); ignoring it instead would be inherited by the program.
#[allow(unsafe_code)]
fn set_foreground(device: BorrowedFd<'_>, group: Pid) -> io::Result<()> {
    let mut blocked = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set before it is used, and pthread_sigmask writes the old mask into memory
    // of the right type that lives until it is read below.
    unsafe {
        libc::sigemptyset(blocked.as_mut_ptr());
        libc::sigaddset(blocked.as_mut_ptr(), libc::SIGTTOU);
        libc::pthread_sigmask(libc::SIG_BLOCK, blocked.as_ptr(), before.as_mut_ptr());
    }
    let outcome = tcsetpgrp(device, group);
    // SAFETY: the call above filled `before`; it can only fail for an unknown first argument.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
    }
    Ok(outcome?)
}
