//! Delays at random moments: by the players themselves, by signals at any instruction, by other processors.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::Pid;

/// Numbers that look random, the same for the same seed (G. Steele et al., "SplitMix", 2014).
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Keeps the processor busy.
pub fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Mostly none, often what a store takes to be seen, or a look, a barrier, a wake-up.
pub fn pause(dice: &mut Dice) {
    match dice.below(100) {
        0..40 => {}
        40..65 => (0..dice.below(200)).for_each(|_| std::hint::spin_loop()),
        65..80 => spin(Duration::from_nanos(dice.below(5_000))),
        80..95 => spin(Duration::from_nanos(dice.below(60_000))),
        95..99 => std::thread::yield_now(),
        _ => std::thread::sleep(Duration::from_nanos(dice.below(300_000))),
    }
}

static HELD_UP: AtomicU64 = AtomicU64::new(0);

/// Has this process held up now and then, for up to 30 µs, wherever it is.
pub fn hold_up_at_random() {
    let action = SigAction::new(SigHandler::Handler(hold_up), SaFlags::empty(), SigSet::empty());
    let every = libc::timeval { tv_sec: 0, tv_usec: 700 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: the handler adds to a number and reads the clock, which signal-safety(7) allows; the timer is live.
    unsafe {
        sigaction(Signal::SIGALRM, &action).expect("sigaction");
        assert_eq!(libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()), 0);
    }
}

extern "C" fn hold_up(_signal: libc::c_int) {
    let number = HELD_UP.fetch_add(1, Relaxed);
    spin(Duration::from_nanos(mix(number) % 30_000));
}

/// How often that was.
pub fn times_held_up() -> u64 {
    HELD_UP.load(Relaxed)
}

/// Moves this thread to one processor or another, or lets it go where it likes.
pub struct Processors {
    all: CpuSet,
    each: Vec<CpuSet>,
}

impl Processors {
    pub fn new() -> Self {
        let all = sched_getaffinity(Pid::from_raw(0)).expect("affinity");
        let each = (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).expect("a processor"));
        let alone = |cpu| {
            let mut set = CpuSet::new();
            set.set(cpu).expect("a processor");
            set
        };
        Self { all, each: each.map(alone).collect() }
    }

    pub fn change(&self, dice: &mut Dice) {
        let chosen = self.each.get(dice.below(self.each.len() as u64 * 2) as usize).unwrap_or(&self.all);
        sched_setaffinity(Pid::from_raw(0), chosen).expect("affinity");
    }
}

/// What the kernel says of this thread's waiting for a processor (proc_pid_schedstat(5)).
pub struct RunQueue(File);

impl RunQueue {
    pub fn new() -> Self {
        Self(File::open("/proc/thread-self/schedstat").expect("/proc"))
    }

    /// How long it has, in all.
    pub fn waited(&self) -> Duration {
        let mut text = [0; 64];
        let len = self.0.read_at(&mut text, 0).expect("schedstat");
        let text = str::from_utf8(&text[..len]).expect("numbers");
        Duration::from_nanos(
            text.split_whitespace().nth(1).expect("three numbers").parse().expect("a number"),
        )
    }
}
