//! How many instructions a message takes, counted by callgrind: the same on a busy machine as on a quiet one.
//!
//! `ci/instructions.sh` runs it. It starts itself under valgrind, which counts what `measured` does and nothing
//! else, on the thread that calls it; `--compare FILE` fails if anything takes a tenth more than the file says,
//! `--record FILE` writes the file. With neither it prints what it counted.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

mod kernels;

/// What a kernel may grow by before it fails.
const TOLERANCE: f64 = 0.10;
/// Instructions that a publish may take more for each further reader.
const PER_READER: f64 = 15.0;

/// By name, per message.
type Counts = BTreeMap<String, f64>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--count"] => return print_names(&kernels::run()),
        ["--test"] | ["--test", ..] => return check(&kernels::run()),
        ["--record", file] => count(None).and_then(|counts| record(&counts, file.as_ref())),
        ["--compare", file] => count(None).and_then(|counts| compare(&counts, file.as_ref())),
        ["--functions", kernel] => count(Some(kernel)).map(drop),
        _ if !has_valgrind() => {
            println!(
                "valgrind is not installed: no instructions are counted (ci/instructions.sh installs it)"
            );
            Ok(())
        }
        _ => count(None).map(|counts| print(&counts)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn print(counts: &[(String, f64)]) {
    counts.iter().for_each(|(name, count)| println!("{count:>9.1}  {name}"));
}

fn print_names(kernels: &[(String, u32)]) -> ExitCode {
    kernels.iter().for_each(|(name, messages)| println!("{messages} {name}"));
    ExitCode::SUCCESS
}

fn check(kernels: &[(String, u32)]) -> ExitCode {
    println!("instructions: {} kernels ran", kernels.len());
    ExitCode::SUCCESS
}

fn has_valgrind() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Runs this program under callgrind, and reads one profile for each kernel, in order; prints the functions of
/// `shown`.
fn count(shown: Option<&str>) -> Result<Vec<(String, f64)>, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let out = dir.path().join("profile");
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--compress-strings=no", "--compress-pos=no"])
        // Or a thread that looks for what another is to do may keep that from running for a minute.
        .arg("--fair-sched=yes")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg("--toggle-collect=instructions::kernels::measured*")
        .arg("--zero-before=instructions::kernels::begins*")
        .arg("--dump-after=instructions::kernels::ends*")
        .arg(program)
        .arg("--count")
        .output()
        .map_err(|error| {
            format!("valgrind cannot be started ({error}): install it, or run ci/instructions.sh")
        })?;
    if !output.status.success() {
        return Err(format!(
            "under valgrind: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let names = String::from_utf8_lossy(&output.stdout);
    let mut counts = Vec::new();
    for (number, line) in (1..).zip(names.lines()) {
        let (messages, name) = line.split_once(' ').ok_or_else(|| format!("no kernel: {line}"))?;
        let messages: f64 = messages.parse().map_err(|error| format!("{line}: {error}"))?;
        let profile = dir.path().join(format!("profile.{number}"));
        let profile =
            fs::read_to_string(&profile).map_err(|error| format!("{}: {error}", profile.display()))?;
        let functions = functions(&profile);
        let total: u64 = functions.values().sum();
        if total == 0 {
            // Symbols have other names, or `measured` was inlined.
            return Err(format!("nothing was counted for {name}"));
        }
        if shown == Some(name) {
            print_functions(functions, messages);
        }
        counts.push((name.to_owned(), (total as f64 / messages * 10.0).round() / 10.0));
    }
    match shown {
        Some(shown) if counts.iter().all(|(name, _)| name != shown) => Err(format!("no kernel {shown}")),
        _ => Ok(counts),
    }
}

/// The instructions of each function itself, by the file whose line they came from and the function that has them.
fn functions(profile: &str) -> BTreeMap<(&str, &str), u64> {
    let (mut file, mut function, mut is_call) = ("", "", false);
    let mut counts = BTreeMap::new();
    for line in profile.lines() {
        if let Some(path) = ["fl=", "fi=", "fe="].iter().find_map(|key| line.strip_prefix(key)) {
            file = path;
        } else if let Some(name) = line.strip_prefix("fn=") {
            function = name;
        } else if line.starts_with("calls=") {
            is_call = true; // the next line is what the callee took
        } else if line.starts_with(|first: char| first.is_ascii_digit()) && !std::mem::take(&mut is_call) {
            let count = line.split(' ').nth(1).and_then(|count| count.parse::<u64>().ok());
            *counts.entry((file, function)).or_default() += count.unwrap_or(0);
        }
    }
    counts
}

fn print_functions(functions: BTreeMap<(&str, &str), u64>, messages: f64) {
    let mut functions: Vec<_> = functions.into_iter().collect();
    functions.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for ((file, function), count) in functions.into_iter().take(120) {
        let short = ["/library/", "/registry/src/", concat!(env!("CARGO_MANIFEST_DIR"), "/")];
        let file = short.iter().find_map(|prefix| file.split_once(prefix)).map_or(file, |(_, file)| file);
        println!("{:>9.1}  {function}  {file}", count as f64 / messages);
    }
}

fn record(counts: &[(String, f64)], file: &Path) -> Result<(), String> {
    let sorted: Counts = counts.iter().cloned().collect();
    let text = serde_json::to_string_pretty(&sorted).map_err(|error| error.to_string())?;
    fs::write(file, text + "\n").map_err(|error| format!("{}: {error}", file.display()))?;
    print(counts);
    println!("recorded in {}", file.display());
    check_readers(counts)
}

fn compare(counts: &[(String, f64)], file: &Path) -> Result<(), String> {
    let text = fs::read_to_string(file).map_err(|error| {
        format!(
            "nothing is recorded for this compiler ({}: {error}). Record what is right, and commit the file: \
             ci/instructions.sh --record",
            file.display()
        )
    })?;
    let recorded: Counts =
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut failed = Vec::new();
    println!("{:<44} {:>9} {:>9}  change", "instructions per message", "recorded", "now");
    for (name, now) in counts {
        let Some(before) = recorded.get(name) else {
            println!("{name:<44} {:>9} {now:>9.1}", "-");
            failed.push(format!("{name}: not recorded"));
            continue;
        };
        let change = now / before - 1.0;
        let mark = if change > TOLERANCE { "  TOO MANY" } else { "" };
        println!("{name:<44} {before:>9.1} {now:>9.1}  {:>+5.1} %{mark}", 100.0 * change);
        if change > TOLERANCE {
            failed.push(format!("{name}: {now} instructions, {before} are recorded"));
        }
    }
    let gone = recorded.keys().filter(|name| counts.iter().all(|(other, _)| other != *name));
    failed.extend(gone.map(|name| format!("{name}: recorded, but no longer counted")));
    if let Err(why) = check_readers(counts) {
        failed.push(why);
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}\nFind what grew (ci/instructions.sh --functions KERNEL), or, if it is worth it: ci/instructions.sh --record",
        failed.join("\n")
    ))
}

/// A publish to many readers looks at one word of each, and does little else for them.
fn check_readers(counts: &[(String, f64)]) -> Result<(), String> {
    let of = |name: String| counts.iter().find(|(other, _)| *other == name).map(|(_, count)| *count);
    for (one, many) in kernels::FANS {
        let (Some(few), Some(most)) = (of(one.into()), of(many.into())) else {
            return Err(format!("{one} and {many} are to be compared, but were not counted"));
        };
        let each = (most - few) / 7.0;
        println!("{each:.1} instructions for each further reader ({one})");
        if each > PER_READER {
            return Err(format!(
                "{many}: {each:.1} instructions for each further reader, {PER_READER} at most"
            ));
        }
    }
    Ok(())
}
