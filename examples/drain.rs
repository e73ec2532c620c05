//! Ends by Ctrl-C with nothing left undone: what was published is read, calls are finished, others hear a goodbye.
//!
//! ```sh
//! cargo run --example drain
//! ```
//!
//! Presses Ctrl-C by itself after half a second, if you do not.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::getpid;
use ringbus::{Bus, PublishError, RecvError};

fn main() -> Result<(), Box<dyn Error>> {
    // Before there are threads: they all leave the signal to the one that waits for it.
    let mut interrupt = SigSet::empty();
    interrupt.add(Signal::SIGINT);
    interrupt.thread_block()?;

    let bus = Bus::private()?; // between processes: Bus::open("agents")
    let mut reader = bus.join("reader")?.subscriber::<u64>("number")?;
    let drained = Arc::new(AtomicBool::new(false));
    let is_over = drained.clone();
    let reading = thread::spawn(move || {
        let mut read = 0_u64;
        loop {
            match reader.recv_timeout(Duration::from_millis(50))? {
                Some(_number) => read += 1,
                None if is_over.load(Ordering::Acquire) => return Ok::<_, RecvError>(read),
                None => {}
            }
        }
    });

    let node = bus.join("worker")?;
    let mut numbers = node.publisher::<u64>("number")?;
    let publishing = thread::spawn(move || {
        for number in 0.. {
            match numbers.publish(&number) {
                Ok(()) => thread::sleep(Duration::from_micros(100)),
                Err(PublishError::Draining) => return Ok(number), // nothing is taken any more
                Err(error) => return Err(error),
            }
        }
        Ok(u64::MAX)
    });

    thread::spawn(|| {
        thread::sleep(Duration::from_millis(500));
        kill(getpid(), Signal::SIGINT)
    });
    interrupt.wait()?;
    println!("interrupted: draining");
    node.drain(Duration::from_secs(2))?; // an error names what was left undone, and whose fault it is
    drained.store(true, Ordering::Release);
    let published = publishing.join().expect("no panic")?;
    let read = reading.join().expect("no panic")?;
    println!("{published} published, {read} read");
    assert_eq!(published, read);
    Ok(())
}
