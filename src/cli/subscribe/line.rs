//! Messages as lines of text or JSON.

use std::io::{self, BufWriter, Write};
use std::sync::mpsc::SyncSender;
use std::time::UNIX_EPOCH;

use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};

use super::super::json::{self, Base64, convert, decode};
use super::super::{CHUNK, Outcome, printable, stdout_error};
use super::Notice;
use super::buffer::{Buffer, Entry};
use crate::frame::PortUp;
use crate::{Encoding, Headers, NodeInfo};

/// Writes what comes out of the buffer, up to `count` lines.
pub(super) fn write_all(buffer: &Buffer, json: bool, count: u64, notices: &SyncSender<Notice>) -> Outcome {
    let mut out = BufWriter::with_capacity(CHUNK, io::stdout().lock());
    let mut left = count;
    loop {
        let batch = buffer.take();
        if batch.is_empty() {
            out.flush().map_err(stdout_error)?;
            if !buffer.wait() {
                return Ok(());
            }
            continue;
        }
        for entry in &batch {
            match write_line(&mut out, entry, json) {
                Ok(()) => left -= 1,
                Err(Bad::Payload(reason)) => {
                    let Entry { topic, source, sequence, .. } = entry;
                    let notice = format!("undecodable message {sequence} on {topic} from {source}: {reason}");
                    let _ = notices.try_send(Notice::Unread(notice));
                }
                Err(Bad::Stdout(error)) => return Err(stdout_error(error)),
            }
            if left == 0 {
                return out.flush().map_err(stdout_error);
            }
        }
        buffer.give_back(batch);
    }
}

enum Bad {
    Payload(String),
    Stdout(io::Error),
}

fn write_line(out: &mut impl Write, entry: &Entry, json: bool) -> Result<(), Bad> {
    let Entry { payload, encoding, .. } = entry;
    match encoding {
        Encoding::MessagePack => write_shown(out, entry, &decode(payload).map_err(Bad::Payload)?, json),
        Encoding::Json => {
            let payload = convert(payload).map_err(Bad::Payload)?;
            write_shown(out, entry, &decode(&payload).map_err(Bad::Payload)?, json)
        }
        Encoding::Raw => write_shown(out, entry, &Bytes(payload), json),
    }
    .map_err(Bad::Stdout)
}

fn write_shown(out: &mut impl Write, entry: &Entry, value: &impl Serialize, is_json: bool) -> io::Result<()> {
    if is_json {
        json::write(&mut *out, &Line { entry, value })?;
    } else {
        // What is sent to one name has one topic: who sent it tells more.
        write!(out, "{} ", printable(if entry.direct { entry.source.name() } else { &entry.topic }))?;
        json::write(&mut *out, value)?;
    }
    out.write_all(b"\n")
}

/// All that is known of a message.
struct Line<'a, V> {
    entry: &'a Entry,
    value: &'a V,
}

impl<V: Serialize> Serialize for Line<'_, V> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let Entry { topic, source, sequence, headers, .. } = self.entry;
        let mut line = out.serialize_struct("Line", 5)?;
        line.serialize_field("topic", topic)?;
        line.serialize_field("source", &Source(source))?;
        if self.entry.priority != PortUp::DEFAULT_PRIORITY {
            line.serialize_field("priority", &self.entry.priority)?;
        }
        if let Some(Ok(since)) = self.entry.time.map(|time| time.duration_since(UNIX_EPOCH)) {
            line.serialize_field("time_ns", &(since.as_nanos() as u64))?;
        }
        if let Some(correlation) = &self.entry.correlation {
            line.serialize_field("correlation", correlation)?;
        }
        line.serialize_field("sequence", sequence)?;
        line.serialize_field("headers", &HeaderMap(headers))?;
        line.serialize_field("value", self.value)?;
        line.end()
    }
}

/// A node, as JSON.
pub(in super::super) struct Source<'a>(pub(in super::super) &'a NodeInfo);

impl Serialize for Source<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut source = out.serialize_struct("Source", 3)?;
        source.serialize_field("name", self.0.name())?;
        source.serialize_field("id", &self.0.id().to_string())?;
        source.serialize_field("pid", &self.0.pid())?;
        source.end()
    }
}

/// Headers, as JSON.
pub(in super::super) struct HeaderMap<'a>(pub(in super::super) &'a Headers);

impl Serialize for HeaderMap<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(None)?;
        for (at, (key, value)) in self.0.iter().enumerate() {
            // An object has each key once.
            if !self.0.iter().take(at).any(|(earlier, _)| earlier == key) {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

/// The payload of a raw publisher.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match str::from_utf8(self.0) {
            Ok(text) => out.serialize_str(text),
            Err(_) => {
                let mut map = out.serialize_map(Some(1))?;
                map.serialize_entry("$raw", &Base64(self.0))?;
                map.end()
            }
        }
    }
}
