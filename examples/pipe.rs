//! Sends lines from one process to another through a pipe: they share its name and nothing else.
//!
//! ```sh
//! cargo run --example pipe --features pipe
//! ```
//!
//! Starts itself once more as the reader, and fails unless every line has arrived.

use std::error::Error;
use std::process::Command;
use std::time::Duration;

use ringbus::pipe::{Reader, Writer};

const LINES: u32 = 10_000;
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        Some(name) => read(&name),
        None => write(&format!("example-{}", std::process::id())),
    }
}

fn write(name: &str) -> Result<(), Box<dyn Error>> {
    let mut writer = Writer::create(name, 64 * 1024)?;
    let mut reader = Command::new(std::env::current_exe()?).arg(name).spawn()?;
    for number in 0..LINES {
        writer.write_timeout(format!("line {number}").as_bytes(), PATIENCE)?;
    }
    // Dropping the writer takes the name away, so wait for a reader before that.
    if !writer.wait_for_reader(PATIENCE) {
        reader.kill()?;
        return Err("the reader did not come".into());
    }
    drop(writer);
    let status = reader.wait()?;
    if status.success() { Ok(()) } else { Err(format!("the reader ended with {status}").into()) }
}

fn read(name: &str) -> Result<(), Box<dyn Error>> {
    let mut reader = Reader::open_within(name, PATIENCE)?;
    let mut line = Vec::new();
    let mut count = 0;
    while reader.read(&mut line)? {
        if line != format!("line {count}").as_bytes() {
            return Err(format!("line {count} is {:?}", String::from_utf8_lossy(&line)).into());
        }
        count += 1;
    }
    println!("read {count} lines of {LINES}");
    if count == LINES { Ok(()) } else { Err("lines are missing".into()) }
}
