//! Lending the terminal to a supervised command.
//!
//! A command in a group of its own may neither read the terminal nor be reached by Ctrl-C unless its group is the
//! terminal's foreground group. So it becomes that, and afterwards we become it again. Lent only when standard input
//! and output are both the terminal and we have it ourselves: in a pipeline the other programs of our group need it.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use rustix::process::{Pid, getpgrp, getpid};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// The controlling terminal, while our process group is in its foreground or was when we lent it. Dropping takes it
/// back.
#[derive(Debug)]
pub(super) struct Terminal {
    device: File,
}

impl Terminal {
    /// The terminal, if it is ours to lend.
    pub(super) fn ours() -> Option<Self> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return None;
        }
        let device = File::options().read(true).write(true).open("/dev/tty").ok()?;
        (tcgetpgrp(&device).ok()? == getpgrp()).then_some(Terminal { device })
    }

    /// Makes the child take the terminal before its program starts, so that the program never sees it otherwise.
    #[allow(unsafe_code)]
    pub(super) fn lend_at_start(&self, command: &mut tokio::process::Command) {
        let device = self.device.as_raw_fd();
        // SAFETY: the closure runs between fork and exec and makes system calls only, all async-signal-safe. The
        // descriptor is open there: `self` outlives the spawning, and close-on-exec comes later.
        unsafe {
            command.pre_exec(move || set_foreground(BorrowedFd::borrow_raw(device), getpid()));
        }
    }

    /// Gives the terminal to `group` once more, if it is ours now.
    pub(super) fn lend(&self, group: Pid) {
        if tcgetpgrp(&self.device).is_ok_and(|foreground| foreground == getpgrp()) {
            // A group that is gone needs no terminal.
            let _ = set_foreground(self.device.as_fd(), group);
        }
    }

    /// Becomes the foreground group again.
    pub(super) fn take_back(&self) {
        // A terminal that was hung up is nobody's.
        let _ = set_foreground(self.device.as_fd(), getpgrp());
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
