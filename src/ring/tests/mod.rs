//! The ring over the heap: exact states, a queue model, hostile bytes, two threads.

mod bells;
mod blobs;
mod cursors;
mod fixture;
mod gates;
mod halts;
mod hostile;
mod lent;
mod lent_model;
mod lossy;
mod model;
mod refusals;
mod regressions;
mod states;
mod store_buffers;
mod succession;
mod threads;
