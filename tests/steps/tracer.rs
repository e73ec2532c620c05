//! A process that is run one instruction at a time, and killed where one likes (ptrace(2)).
//!
//! Its threads are numbered as they come, the main one 0. It says by [`mark`] where what is looked at begins and ends.

use std::collections::HashSet;
use std::mem::offset_of;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// What other threads still do is waited for until they have done nothing for so long, or for so long in all.
const WHILE: Duration = Duration::from_millis(20);
const IN_ALL: Duration = Duration::from_millis(400);

/// Here it begins, or ends.
pub fn mark() {
    raise(Signal::SIGSTOP).expect("raise");
}

/// This process, and those that it starts, to one processor: a step is then a switch, and no interrupt.
pub fn stay_on_one_processor() {
    let here = nix::sched::sched_getcpu().expect("a processor");
    let mut set = CpuSet::new();
    set.set(here).expect("a processor");
    sched_setaffinity(Pid::from_raw(0), &set).expect("affinity");
}

/// A stopped process.
pub struct Tracee {
    threads: Vec<Pid>,
    /// Threads that are in a system call, as far as their stops tell.
    inside: HashSet<Pid>,
    /// Threads that have had the stop that begins them.
    begun: HashSet<Pid>,
    sees: Sees,
    /// Where each thread stops whenever it gets there, but while it is told otherwise.
    place: Option<u64>,
    /// Others keep it busy: it will not be silent.
    busy: bool,
    /// The main thread is at its last mark: this long the others are waited for, if they do no more; and at most.
    ends: Option<(Instant, Instant)>,
}

/// What a tracer sees, each with what is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sees {
    MainThread,
    AllThreads,
    SystemCalls,
}

/// Why a thread has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Mark,
    Entry,
    Exit,
    Step,
    /// It has just been started.
    Birth,
}

impl Tracee {
    /// Starts a process, and runs it to its first mark. From then on each thread stops at `place`.
    pub fn start(sees: Sees, place: Option<u64>, busy: bool, victim: impl FnOnce()) -> Self {
        // SAFETY: this process has one thread, so its child may do whatever it likes.
        let main = match unsafe { fork() }.expect("fork") {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("prctl");
                ptrace::traceme().expect("traceme");
                mark();
                let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(victim));
                // SAFETY: ends the process, of which nothing else is left to do.
                unsafe { libc::_exit(if ended.is_ok() { 0 } else { 101 }) }
            }
        };
        assert_eq!(waitpid(main, None).expect("wait"), WaitStatus::Stopped(main, Signal::SIGSTOP));
        let mut options = Options::PTRACE_O_EXITKILL | Options::PTRACE_O_TRACESYSGOOD;
        if sees >= Sees::AllThreads {
            options |= Options::PTRACE_O_TRACECLONE;
        }
        ptrace::setoptions(main, options).expect("options");
        let (inside, begun) = (HashSet::new(), HashSet::from([main]));
        let mut tracee = Self { threads: vec![main], inside, begun, sees, place, busy, ends: None };
        tracee.stop_at_place(0, true);
        tracee.go_on(0);
        loop {
            match tracee.next().expect("a victim that gets to its mark") {
                (0, Stop::Mark) => {
                    tracee.ends = None;
                    return tracee;
                }
                (thread, _) => tracee.go_on(thread),
            }
        }
    }

    /// Lets a stopped thread run to its next system call, or end of one.
    pub fn go_on(&self, thread: usize) {
        self.restart(self.threads[thread], None);
    }

    /// Lets a stopped thread run one instruction.
    pub fn step(&self, thread: usize) {
        let _ = ptrace::step(self.threads[thread], None); // it may have been ended meanwhile
    }

    /// Whether a thread stops, as after a step, whenever it comes to the place (debug register 0).
    pub fn stop_at_place(&self, thread: usize, stops: bool) {
        let Some(place) = self.place else { return };
        let register = |n: usize| {
            (offset_of!(libc::user, u_debugreg) + n * size_of::<libc::c_long>()) as ptrace::AddressType
        };
        let write =
            |n, value: u64| ptrace::write_user(self.threads[thread], register(n), value as libc::c_long);
        // Whoever has ended meanwhile stops nowhere.
        let _ = write(7, 0).and_then(|()| write(0, place)).and_then(|()| write(7, u64::from(stops)));
    }

    /// Where a stopped thread is.
    pub fn place(&self, thread: usize) -> u64 {
        ptrace::syscall_info(self.threads[thread]).map_or(0, |info| info.instruction_pointer)
    }

    /// Whether the next instruction of a stopped thread is a system call.
    pub fn is_at_call(&self, thread: usize) -> bool {
        const SYSCALL: libc::c_long = 0x050f;
        let next = self.place(thread) as ptrace::AddressType;
        ptrace::read(self.threads[thread], next).is_ok_and(|bytes| bytes & 0xffff == SYSCALL)
    }

    fn restart(&self, thread: Pid, signal: Option<Signal>) {
        let _ = match self.sees {
            Sees::SystemCalls => ptrace::syscall(thread, signal),
            Sees::MainThread | Sees::AllThreads => ptrace::cont(thread, signal),
        };
    }

    /// The next stop of any thread; `None` at the end of the process, or if nothing has happened for a while since the
    /// main thread is at its last mark.
    pub fn next(&mut self) -> Option<(usize, Stop)> {
        loop {
            if self.ends.is_some_and(|(_, in_all)| in_all <= Instant::now()) {
                return None;
            }
            let how = if self.ends.is_some() { WaitPidFlag::WNOHANG } else { WaitPidFlag::empty() };
            let status = waitpid(None, Some(WaitPidFlag::__WALL | how)).expect("wait");
            let Some(thread) = status.pid() else {
                if self.ends.is_some_and(|(ends, _)| ends <= Instant::now()) {
                    return None;
                }
                std::thread::sleep(Duration::from_micros(100));
                continue;
            };
            if let Some((ends, in_all)) = &mut self.ends
                && !self.busy
            {
                *ends = (Instant::now() + WHILE).min(*in_all);
            }
            match status {
                WaitStatus::PtraceSyscall(_) => {
                    let entry = self.inside.insert(thread);
                    if !entry {
                        self.inside.remove(&thread);
                    }
                    return Some((self.number(thread), if entry { Stop::Entry } else { Stop::Exit }));
                }
                WaitStatus::Stopped(_, Signal::SIGSTOP) if self.begun.insert(thread) => {
                    let number = self.number(thread);
                    self.stop_at_place(number, true);
                    return Some((number, Stop::Birth));
                }
                WaitStatus::Stopped(_, Signal::SIGSTOP) => {
                    let now = Instant::now();
                    self.ends = Some((now + WHILE, now + IN_ALL));
                    return Some((self.number(thread), Stop::Mark));
                }
                WaitStatus::Stopped(_, Signal::SIGTRAP) => return Some((self.number(thread), Stop::Step)),
                WaitStatus::Stopped(_, signal) => self.restart(thread, Some(signal)),
                WaitStatus::PtraceEvent(..) => self.restart(thread, None),
                WaitStatus::Exited(_, code) if thread == self.threads[0] => {
                    assert_eq!(code, 0, "the victim has failed");
                    return None;
                }
                WaitStatus::Signaled(..) if thread == self.threads[0] => return None,
                _ => {}
            }
        }
    }

    fn number(&mut self, thread: Pid) -> usize {
        self.threads.iter().position(|known| *known == thread).unwrap_or_else(|| {
            self.threads.push(thread);
            self.threads.len() - 1
        })
    }

    /// Kills the process where it stands.
    pub fn kill(self) {
        let main = self.threads[0];
        kill(main, Signal::SIGKILL).expect("kill");
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == main => {
                    return assert_eq!(signal, Signal::SIGKILL);
                }
                Ok(WaitStatus::Exited(pid, 0)) if pid == main => return, // it was quicker
                Ok(_) => {}
                Err(error) => panic!("the victim is not there: {error}"),
            }
        }
    }
}
