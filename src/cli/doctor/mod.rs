//! `ringbus doctor`: whether this host, this user and this directory can run a bus. It looks, and
//! changes nothing; with `--fix` it removes what dead processes have left.

use std::fmt::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use clap::Args;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{getsockopt, sockopt};
use serde::Serialize;

use super::{Common, Outcome, grouped, ls::size, print, print_json, printable};
use crate::sys::limits::{self, Resource};
use crate::sys::seqpacket::{MAX_DATAGRAM, Socket};
use crate::sys::{fork, membarrier, memfd, pidfd, timerfd};

mod leftovers;
mod place;

use leftovers::{Leftovers, Thing};

/// What a log of the default capacity takes, and what its largest message may take.
const SMALLEST_FILE: u64 = 260 * 1024;
const COMFORTABLE_FILE: u64 = 64 << 20;
/// A node with a handful of ports and peers.
const FEW_FILES: u64 = 256;
const SMALLEST_SPACE: u64 = 256 << 20;
const COMFORTABLE_SPACE: u64 = 4 << 30;

/// Check whether this host, this user and the bus's directory are fit for a bus
#[derive(Debug, Args)]
#[command(after_long_help = "\
Looks at the kernel, the limits of this process, the bus's directory and the sockets in it, and changes
nothing. Each line is `ok`, `warn` (works, but not as well as it could) or `fail`, with what to do. Fails
if a line does.

With --fix, removes what is provably dead: in the bus's directory, sockets of this user that nobody listens at,
and directories of private buses whose owners were killed. Names each thing that it removes, and each that it
leaves, with the reason; without --fix, what it would remove. What a process that lives has, though it is stopped, is
left; so is what belongs to another user or is not of the bus. Nothing is removed from a directory that a line fails on.
Fails also if something could not be removed.

JSON:
  {\"ok\":BOOL,\"checks\":[{\"check\":NAME,\"status\":\"ok\"|\"warn\"|\"fail\",\"found\":TEXT,\"advice\":TEXT|null}, …],
   \"fixable\":[{\"path\":PATH,\"why\":TEXT}, …],\"fixed\":[…],\"left\":[…]}
Without --fix `fixed` is empty; with it `fixable` is.")]
pub(super) struct Options {
    /// Remove what dead processes have left
    #[arg(long)]
    fix: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    status: Status,
    found: String,
    advice: Option<String>,
}

impl Check {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, found: found.into(), advice: None }
    }

    fn warn(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, status: Status::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    fn fail(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, status: Status::Fail, found: found.into(), advice: Some(advice.into()) }
    }
}

#[derive(Debug, Serialize)]
struct Diagnosis {
    ok: bool,
    checks: Vec<Check>,
    #[serde(flatten)]
    leftovers: Leftovers,
}

pub(super) fn run(common: &Common, options: &Options) -> Outcome {
    let mut checks = vec![kernel(), sealed_memory(), executable_memory(), bells(), process_handles()];
    checks.extend([barriers(), forks(), open_files(), file_size(), address_space()]);
    checks.extend([datagrams(), strangers()]);
    let mut leftovers = Leftovers::new(options.fix);
    checks.extend(place::checks(common, &mut leftovers)?);
    checks.push(leftovers.private_buses());
    let failed = checks.iter().filter(|check| check.status == Status::Fail).count();
    let total = checks.len();
    let diagnosis = Diagnosis { ok: failed == 0, checks, leftovers };
    if options.json {
        print_json(&diagnosis)?;
    } else {
        print(diagnosis.text().trim_end())?;
    }
    match failed {
        0 => Ok(()),
        _ => Err(format!("{failed} of {total} checks failed: each says what to do").into()),
    }
}

impl Diagnosis {
    fn text(&self) -> String {
        let width = self.checks.iter().map(|check| check.check.len()).max().unwrap_or(0);
        let mut text = String::new();
        for Check { check, status, found, advice } in &self.checks {
            let status = match status {
                Status::Ok => "ok",
                Status::Warn => "warn",
                Status::Fail => "FAIL",
            };
            let _ = writeln!(text, "{status:<4}  {check:<width$}  {}", printable(found));
            if let Some(advice) = advice {
                let _ = writeln!(text, "{:6}{:width$}  → {}", "", "", printable(advice));
            }
        }
        let Leftovers { fixable, fixed, left, fix } = &self.leftovers;
        let left = if *fix { &left[..] } else { &[] };
        for (what, things) in [("would remove", &fixable[..]), ("removed", fixed), ("left", left)] {
            for Thing { path, why } in things {
                let _ = writeln!(text, "{what} {}: {}", printable(&path.to_string_lossy()), printable(why));
            }
        }
        text
    }
}

fn kernel() -> Check {
    match limits::kernel_release() {
        Ok(release) => Check::ok("kernel", format!("Linux {release}")),
        Err(error) => Check::warn("kernel", error.to_string(), "uname(2) should work everywhere"),
    }
}

fn sealed_memory() -> Check {
    const NAME: &str = "sealed memory";
    let sealed = memfd::create("ringbus-doctor", 4096).and_then(|fd| {
        memfd::seal(&fd)?;
        memfd::seals(&fd)
    });
    match sealed {
        Ok(seals) if seals & memfd::REQUIRED == memfd::REQUIRED => {
            Check::ok(NAME, "memfd_create, F_SEAL_SHRINK, _GROW, _FUTURE_WRITE, _SEAL")
        }
        Ok(seals) => Check::fail(
            NAME,
            format!("the seals 0x{seals:x} only"),
            "run Linux 5.1 or newer, not an emulation",
        ),
        Err(error) => Check::fail(
            NAME,
            error.to_string(),
            "run Linux 5.1 or newer, and let the container's seccomp filter pass memfd_create and fcntl",
        ),
    }
}

fn executable_memory() -> Check {
    const NAME: &str = "no-exec memory";
    const EXEC: u32 = libc::F_SEAL_EXEC as u32;
    let seals = memfd::create("ringbus-doctor", 4096).and_then(memfd::seals);
    match seals {
        Ok(seals) if seals & EXEC != 0 => Check::ok(NAME, "MFD_NOEXEC_SEAL"),
        _ => Check::warn(
            NAME,
            "no MFD_NOEXEC_SEAL",
            "nothing is missing but a line of defence: Linux 6.3 has it",
        ),
    }
}

fn bells() -> Check {
    match timerfd::create() {
        Ok(_) => Check::ok("wake-ups", "timerfd"),
        Err(error) => Check::fail(
            "wake-ups",
            format!("timerfd: {error}"),
            "let the container pass timerfd_create and timerfd_settime, or `ulimit -n`",
        ),
    }
}

fn process_handles() -> Check {
    const NAME: &str = "process handles";
    let peer =
        UnixStream::pair().is_ok_and(|(one, _other)| getsockopt(&one.as_fd(), sockopt::PeerPidfd).is_ok());
    let open = pidfd::open(std::process::id() as i32).is_ok();
    match (peer, open) {
        (true, true) => Check::ok(NAME, "SO_PEERPIDFD, pidfd_open"),
        (true, false) => Check::ok(NAME, "SO_PEERPIDFD"),
        (false, true) => Check::warn(
            NAME,
            "pidfd_open, no SO_PEERPIDFD",
            "enough within one pid namespace; Linux 6.5 also tells deaths in others at once",
        ),
        (false, false) => Check::warn(
            NAME,
            "neither SO_PEERPIDFD nor pidfd_open",
            "a process that is killed while a forked child lives on is not noticed: run Linux 5.3 or newer",
        ),
    }
}

fn barriers() -> Check {
    const NAME: &str = "barriers";
    let commands = membarrier::query();
    let has = |command: i32| commands & command != 0;
    match (has(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED), has(libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED)) {
        (true, true) => Check::ok(NAME, "membarrier: private and global expedited"),
        _ => Check::warn(
            NAME,
            format!("membarrier commands 0x{commands:x}"),
            "correct, with a fence for every message: let the container pass membarrier (Linux 4.16)",
        ),
    }
}

fn forks() -> Check {
    match fork::init() {
        Ok(()) if fork::wiped_by_kernel() => Check::ok("forks", "MADV_WIPEONFORK"),
        Ok(()) => Check::warn(
            "forks",
            "no MADV_WIPEONFORK",
            "children made by a bare clone(2) are not noticed: Linux 4.14",
        ),
        Err(error) => Check::fail("forks", error.to_string(), "raise the address space limit (`ulimit -v`)"),
    }
}

fn open_files() -> Check {
    const ADVICE: &str =
        "each peer takes two, each port and each log read a few: `ulimit -n 4096`, or LimitNOFILE=";
    check_limit("open files", Resource::OpenFiles, grouped, 32, FEW_FILES, ADVICE)
}

fn file_size() -> Check {
    const ADVICE: &str = "no log can be larger: `ulimit -f unlimited`, or LimitFSIZE=infinity";
    check_limit("file size", Resource::FileSize, size, SMALLEST_FILE, COMFORTABLE_FILE, ADVICE)
}

fn address_space() -> Check {
    const ADVICE: &str = "each log that is read is mapped: `ulimit -v unlimited`, or LimitAS=infinity";
    check_limit("address space", Resource::AddressSpace, size, SMALLEST_SPACE, COMFORTABLE_SPACE, ADVICE)
}

fn check_limit(
    name: &'static str,
    resource: Resource,
    show: impl Fn(u64) -> String,
    smallest: u64,
    comfortable: u64,
    advice: &str,
) -> Check {
    let limit = match limits::limit(resource) {
        Ok(limit) => limit,
        Err(error) => return Check::warn(name, error.to_string(), "getrlimit(2) should work everywhere"),
    };
    let show = |number| if number == u64::MAX { "unlimited".to_owned() } else { show(number) };
    let mut found = show(limit.soft);
    if limit.hard != limit.soft {
        let _ = write!(found, ", can be raised to {}", show(limit.hard));
    }
    match limit.soft {
        soft if soft < smallest => Check::fail(name, found, advice),
        soft if soft < comfortable => Check::warn(name, found, advice),
        _ => Check::ok(name, found),
    }
}

/// A session's datagrams are bounded by its socket's buffer.
fn datagrams() -> Check {
    const NAME: &str = "socket buffers";
    const ADVICE: &str = "sessions send datagrams of 64 KiB: `sysctl net.core.wmem_default=212992`";
    // The kernel counts its own costs, too.
    const LEAST: usize = MAX_DATAGRAM + 1024;
    let buffer = Socket::pair()
        .and_then(|(one, _other)| getsockopt(&one.as_fd(), sockopt::SndBuf).map_err(Errno::into));
    match buffer {
        Ok(bytes) if bytes >= LEAST => Check::ok(NAME, size(bytes as u64)),
        Ok(bytes) => Check::fail(NAME, size(bytes as u64), ADVICE),
        Err(error) => Check::fail(
            NAME,
            error.to_string(),
            "Unix sockets of type SOCK_SEQPACKET are needed: let the container's seccomp filter pass them",
        ),
    }
}

fn strangers() -> Check {
    const NAME: &str = "datagram queue";
    match limits::max_dgram_qlen() {
        // Sessions are connected at both ends, where this limit does not hold.
        Ok(many) => {
            Check::ok(NAME, format!("net.unix.max_dgram_qlen {many} (sessions: bounded by their buffers)"))
        }
        Err(_) => Check::ok(NAME, "net.unix.max_dgram_qlen is hidden here, and does not matter"),
    }
}
