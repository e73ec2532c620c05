//! MessagePack frames: what a record carries. No I/O, no unsafe.
#![forbid(unsafe_code)]
