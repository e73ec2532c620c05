//! The peers, one file each: all are used in the same way, by two processes.

use crate::control::{First, Second};
use crate::job::{Figure, Job, Result, Row};

#[cfg(feature = "aeron")]
mod aeron;
mod bare;
mod ends;
mod iceoryx2;
mod ipc_channel;
mod pipe;
mod ringbus;
mod shmipc;
mod socket;
mod spin;
mod tonic;
mod typed;
#[cfg(feature = "zenoh")]
mod zenoh;
#[cfg(feature = "zmq")]
mod zmq;

/// A way between two processes.
pub trait Peer: Sync {
    /// The ways to use it that are measured.
    fn rows(&self) -> &'static [Row];

    /// The process that sends first, and holds the clock.
    fn first(&self, job: &Job, second: &mut Second) -> Result<Figure>;

    /// The process that sends back, or reads.
    fn second(&self, job: &Job, first: &mut First) -> Result<()>;

    /// Removes what processes that were killed have left outside of the job's directory.
    fn clean(&self, _job: &Job) {}
}

/// All that were built in, in the order of the tables.
pub const ALL: &[&dyn Peer] = &[
    &ringbus::Ringbus,
    &bare::Bare,
    &iceoryx2::Iceoryx2,
    #[cfg(feature = "aeron")]
    &aeron::Aeron,
    &shmipc::Shmipc,
    &ipc_channel::IpcChannel,
    &tonic::Tonic,
    #[cfg(feature = "zenoh")]
    &zenoh::Zenoh,
    #[cfg(feature = "zmq")]
    &zmq::Zmq,
    &socket::Socket,
    &pipe::Pipe,
];

/// The peer that has a row of this name.
pub fn of_row(name: &str) -> Result<&'static dyn Peer> {
    let has = |peer: &&&'static dyn Peer| peer.rows().iter().any(|row| row.name == name);
    ALL.iter().find(has).copied().ok_or_else(|| format!("no row {name}").into())
}
