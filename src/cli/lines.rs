//! JSON lines between the first process of a command and those that it starts: orders on their stdin, reports on
//! their stdout.

use std::io::{self, BufRead, Write};
use std::sync::mpsc::{self, Receiver};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Outcome, stdout_error};

/// Has the kernel kill this process when the first one dies, whose id that is; false if that has died already. Stopped
/// processes would not see the end of their orders.
pub(super) fn end_with(parent: i32) -> Outcome<bool> {
    set_pdeathsig(Signal::SIGKILL)?;
    // It may have died before it could be asked for.
    Ok(getppid().as_raw() == parent)
}

/// The orders on stdin. The channel is disconnected when the first process is gone, or wants no more.
pub(super) fn orders<O: DeserializeOwned + Send + 'static>() -> Receiver<O> {
    let (sender, orders) = mpsc::channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            let Ok(order) = serde_json::from_str(&line) else { return };
            if sender.send(order).is_err() {
                return;
            }
        }
    });
    orders
}

/// Writes a line, to the first process or from it.
pub(super) fn write_line(out: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}

/// Reports to the first process.
pub(super) fn tell(report: &impl Serialize) -> Outcome {
    write_line(&mut io::stdout().lock(), report).map_err(stdout_error)
}
