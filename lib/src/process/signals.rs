//! The signals that a supervised command is to get instead of us.
//!
//! They are blocked and read from a descriptor (signalfd(2)) rather than caught. So none is lost between two moments of
//! listening, and those are covered that a handler could not take without harm, such as a SEGV that somebody sends. One
//! that is a fault of our own still ends us: the kernel does not let it be blocked (signal(7)).

use std::fs::File;
use std::future::pending;
use std::io::{self, Read as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, getpid, kill_process};
use tokio::io::unix::AsyncFd;

use crate::failure::{Failure, Result};

/// How long what the kernel tells of one signal is, in bytes (signalfd(2)).
const RECORD: usize = size_of::<libc::signalfd_siginfo>();

/// What children have to be given back.
static BLOCKED: OnceLock<Blocked> = OnceLock::new();

/// The signals that are blocked here.
#[derive(Clone, Copy)]
pub(super) struct Blocked {
    set: libc::sigset_t,
    /// Those that were blocked when we were started.
    before: libc::sigset_t,
}

/// The signals that come in. From the first use on, none of them ends this process any more, nor stops it.
#[derive(Debug)]
pub struct Signals {
    descriptor: AsyncFd<File>,
}

impl Signals {
    /// Starts listening, in this thread and those that it starts from now on. A signal that whoever started us has
    /// switched off (`nohup` does that with HUP) stays off, for the command too.
    ///
    /// # Errors
    /// Internal (exit 1) when the system refuses.
    pub(crate) fn listen() -> Result<Self> {
        Self::open(ignored()).map_err(|error| Failure::internal("cannot listen for signals").because(error))
    }

    #[allow(unsafe_code)]
    fn open(ignored: u64) -> io::Result<Self> {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set before anything else uses it.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        for number in numbers() {
            if ignored & (1 << (number - 1)) == 0 {
                // SAFETY: the set was initialised above; a number that the C library keeps for itself is refused.
                unsafe { libc::sigaddset(set.as_mut_ptr(), number) };
            }
        }
        let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the set was initialised above, and the old mask goes into memory of the right type.
        let blocked = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr()) };
        if blocked != 0 {
            return Err(io::Error::from_raw_os_error(blocked));
        }
        // SAFETY: the call above was successful and filled both.
        BLOCKED.get_or_init(|| unsafe {
            Blocked {
                set: set.assume_init(),
                before: before.assume_init(),
            }
        });
        // SAFETY: the set was initialised above; -1 asks for a new descriptor.
        let descriptor = unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        // SAFETY: the file stays open for as long as it is registered: nobody else has it, and it goes with `self`.
        let descriptor = unsafe { AsyncFd::register(File::from(descriptor)) }?;
        Ok(Signals { descriptor })
    }

    /// The next signal of any kind.
    pub(super) async fn next(&mut self) -> Signal {
        loop {
            let Ok(mut ready) = self.descriptor.readable().await else {
                // Only when the runtime shuts down.
                return pending().await;
            };
            match ready.try_io(|descriptor| read(descriptor.get_ref())) {
                Ok(Ok(Some(signal))) => return signal,
                Ok(Ok(None)) | Err(_) => {}
                Ok(Err(_)) => return pending().await,
            }
        }
    }

    /// The number of the next signal that asks us to end; the others have no meaning while there is no command.
    pub async fn ending(&mut self) -> i32 {
        loop {
            let signal = self.next().await;
            if let Some(number) = heed(signal) {
                return number;
            }
        }
    }

    /// As [`Signals::ending`], of those that came in already.
    pub(super) fn ended_by_now(&mut self) -> Option<i32> {
        loop {
            match read(self.descriptor.get_ref()) {
                Ok(Some(signal)) => {
                    if let Some(number) = heed(signal) {
                        return Some(number);
                    }
                }
                Ok(None) => {}
                Err(_) => return None,
            }
        }
    }
}

impl Blocked {
    /// What a child must not inherit, if anything.
    pub(super) fn here() -> Option<Self> {
        BLOCKED.get().copied()
    }

    /// Lets this process take signals as it would have without us. For a child, before its program starts: nothing but
    /// system calls, all async-signal-safe.
    #[allow(unsafe_code)]
    pub(super) fn lift(&self) {
        for number in 1..=libc::SIGRTMAX() {
            // SAFETY: the set is initialised; a handler of ours is nothing for the program, and nothing ours runs any more.
            unsafe {
                if libc::sigismember(&self.set, number) == 1 {
                    libc::signal(number, libc::SIG_DFL);
                }
            }
        }
        // SAFETY: the mask is initialised, and no old one is asked for.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut());
        }
    }
}

/// All that can be passed on. Not CHLD, by which we learn of the command.
fn numbers() -> impl Iterator<Item = i32> {
    (1..32)
        .filter(|number| ![libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD].contains(number))
        .chain(libc::SIGRTMIN()..=libc::SIGRTMAX())
}

/// Reads one signal; none when it is to be passed over.
///
/// # Errors
/// Would block, when there is none.
#[allow(unsafe_code)]
fn read(mut descriptor: &File) -> io::Result<Option<Signal>> {
    let mut record = [0_u8; RECORD];
    loop {
        match descriptor.read(&mut record) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    // Both stand where signalfd(2) says, as numbers of the machine: ssi_signo first, ssi_pid as the fourth.
    let field = |at: usize| i32::from_ne_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
    let (number, sender) = (field(0), field(12));
    // Nobody takes our own output any more, which the write that found it out has said already.
    if number == libc::SIGPIPE && Pid::from_raw(sender) == Some(getpid()) {
        return Ok(None);
    }
    let signal = Signal::from_named_raw(number).or_else(|| {
        // SAFETY: the kernel has just delivered it, and it is none that the C library keeps for itself: those are not
        // in the set.
        (libc::SIGRTMIN()..=libc::SIGRTMAX())
            .contains(&number)
            .then(|| unsafe { Signal::from_raw_unchecked(number) })
    });
    Ok(signal)
}

/// What a signal means to us while there is no command: its number when we are to end.
fn heed(signal: Signal) -> Option<i32> {
    if stops(signal) {
        stop_ourselves();
    }
    let fatal = [
        Signal::ABORT,
        Signal::BUS,
        Signal::FPE,
        Signal::ILL,
        Signal::SEGV,
        Signal::SYS,
        Signal::TRAP,
        Signal::XCPU,
        Signal::XFSZ,
    ];
    (ends(signal) || fatal.contains(&signal)).then(|| signal.as_raw())
}

/// Whether a signal asks to end.
pub(super) fn ends(signal: Signal) -> bool {
    matches!(signal, Signal::HUP | Signal::INT | Signal::QUIT | Signal::TERM)
}

/// Whether a signal asks to pause.
pub(super) fn stops(signal: Signal) -> bool {
    matches!(signal, Signal::TSTP | Signal::TTIN | Signal::TTOU)
}

/// Pauses this process until somebody sends it CONT.
pub(super) fn stop_ourselves() {
    // It cannot fail: STOP to oneself is always allowed.
    let _ = kill_process(getpid(), Signal::STOP);
}

/// Sends this process a signal.
pub(crate) fn raise(number: i32) {
    if let Some(signal) = Signal::from_named_raw(number) {
        // It cannot fail: every process may signal itself.
        let _ = kill_process(getpid(), signal);
    }
}

/// Whether whoever started us has switched a signal off, as `nohup` does with HUP.
pub(crate) fn is_ignored(number: i32) -> bool {
    ignored() & (1 << (number - 1)) != 0
}

/// The set of signals that this process ignores, one bit each, lowest first (proc_pid_status(5), `SigIgn`). Empty when
/// it cannot be read: then every signal is passed on. PIPE is not in it, since it is the language's runtime that
/// ignores that one, and for us alone.
fn ignored() -> u64 {
    let set = std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or(0);
    set & !(1 << (libc::SIGPIPE - 1))
}
