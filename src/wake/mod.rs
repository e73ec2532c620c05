//! Bells, and how long to look before sleeping on one.
//!
//! The protocol that makes sleeping safe is [`crate::ring::Waiter`]; this is what it sleeps on.
#![forbid(unsafe_code)]

pub(crate) mod barrier;
mod bell;
mod habit;
mod strategy;

pub(crate) use bell::Bell;
pub(crate) use habit::Habit;
pub use strategy::Wait;
pub(crate) use strategy::{Patience, Then};
