//! Tables that a person reads, and the same as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::Options;
use crate::job::{SUBSCRIBERS, Workload};
use crate::plan::{Cell, Line};

pub fn title(cell: &Cell) -> String {
    let payload = bytes(cell.payload);
    match cell.workload {
        Workload::Rtt => format!("Event and its echo, {payload}: round trip"),
        Workload::Throughput => format!("Events one way, {payload}, every byte read: messages per second"),
        Workload::Fanout => format!("Events to {SUBSCRIBERS} subscribers, {payload}: deliveries per second"),
        Workload::Call => format!("Call, {payload} each way: round trip"),
    }
}

fn bytes(count: usize) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..0x10_0000 => format!("{} KiB", count >> 10),
        _ => format!("{} MiB", count >> 20),
    }
}

/// Three digits, with a unit.
pub fn value(cell: &Cell, value: f64) -> String {
    if cell.workload.is_time() {
        match value {
            ..1e3 => format!("{value:.0} ns"),
            1e3..1e6 => format!("{} µs", digits(value / 1e3)),
            _ => format!("{} ms", digits(value / 1e6)),
        }
    } else {
        match value {
            ..1e3 => format!("{value:.0} /s"),
            1e3..1e6 => format!("{} k/s", digits(value / 1e3)),
            _ => format!("{} M/s", digits(value / 1e6)),
        }
    }
}

fn digits(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

pub fn table(options: &Options, cells: &[Cell]) -> String {
    let mut out = format!("{}\n", machine());
    let _ = writeln!(
        out,
        "Medians of {} runs in turns, {} ms each, without those in which the host had the CPUs elsewhere than in most, or \
         others computed on them; ×: how many times as fast ringbus is, used in the same way",
        options.repetitions(),
        options.time().as_millis()
    );
    for cell in cells {
        let _ = writeln!(out, "\n{}", title(cell));
        let third = if cell.workload.is_time() { "p99" } else { "bytes/s" };
        let _ =
            writeln!(out, "  {:26} {:>10} {:>21} {third:>10} {:>7}", "", "median", "lowest – highest", "×");
        for line in &cell.lines {
            let _ = writeln!(out, "  {}", text(cell, line));
        }
    }
    out
}

fn text(cell: &Cell, line: &Line) -> String {
    if let Some(error) = &line.error {
        return format!("{:26} failed: {error}", line.row);
    }
    let of = |of: Option<f64>| of.map_or_else(|| "–".into(), |of| value(cell, of));
    let range = match (lowest(line), highest(line)) {
        (Some(low), Some(high)) => format!("{} – {}", value(cell, low), value(cell, high)),
        _ => "–".into(),
    };
    let third = if cell.workload.is_time() { of(line.p99()) } else { volume(cell, line) };
    let ratio = cell.ratio(line).map_or_else(|| "–".into(), |ratio| format!("{ratio:.2}"));
    let elsewhere = if line.elsewhere { "  (all of them elsewhere)" } else { "" };
    format!("{:26} {:>10} {range:>21} {third:>10} {ratio:>7}{elsewhere}", line.row, of(line.median()))
}

fn volume(cell: &Cell, line: &Line) -> String {
    match line.median() {
        Some(rate) => match rate * cell.payload as f64 {
            volume @ ..1e9 => format!("{} MB/s", digits(volume / 1e6)),
            volume => format!("{} GB/s", digits(volume / 1e9)),
        },
        None => "–".into(),
    }
}

fn values(line: &Line) -> impl Iterator<Item = f64> {
    line.figures.iter().map(|figure| figure.value)
}

fn lowest(line: &Line) -> Option<f64> {
    values(line).min_by(f64::total_cmp)
}

fn highest(line: &Line) -> Option<f64> {
    values(line).max_by(f64::total_cmp)
}

pub fn json(options: &Options, cells: &[Cell]) -> Value {
    let lines = |cell: &Cell| -> Vec<Value> {
        let line = |line: &Line| {
            json!({
                "row": line.row,
                "median": line.median(),
                "lowest": lowest(line),
                "highest": highest(line),
                "p99": line.p99(),
                "ringbus_times_as_fast": cell.ratio(line),
                "values": values(line).collect::<Vec<_>>(),
                "left_out": line.left_out,
                "elsewhere": line.elsewhere,
                "error": line.error,
            })
        };
        cell.lines.iter().map(line).collect()
    };
    let cell = |cell: &Cell| {
        json!({
            "workload": cell.workload,
            "payload": cell.payload,
            "unit": if cell.workload.is_time() { "ns" } else { "per_s" },
            "rows": lines(cell),
        })
    };
    json!({
        "machine": machine(),
        "repetitions": options.repetitions(),
        "millis": options.time().as_millis() as u64,
        "cells": cells.iter().map(cell).collect::<Vec<_>>(),
    })
}

/// What the figures belong to.
fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let of =
        |key: &str| info.lines().find(|line| line.starts_with(key)).and_then(|line| line.split(": ").nth(1));
    let cpus = info.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let version: String = kernel.trim().chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let mhz = of("cpu MHz").unwrap_or("?");
    let virtual_machine = if info.contains(" hypervisor") { ", a virtual machine" } else { "" };
    format!("{cpus} CPUs ({}, {mhz} MHz{virtual_machine}), Linux {version}", of("model name").unwrap_or("?"))
}
