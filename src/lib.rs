//! A message bus between the processes of one Linux host, over sealed shared memory.

#[cfg(not(target_os = "linux"))]
compile_error!("ringbus needs Linux: it is built on memfd seals, eventfd, pidfd and membarrier");

#[cfg(not(loom))]
mod bus;
#[cfg(all(feature = "cli", not(loom)))]
#[doc(hidden)]
pub mod cli;
#[cfg(not(loom))]
mod control;
mod frame;
mod ring;
mod segment;
mod sys;
#[cfg(not(loom))]
mod wake;

#[cfg(not(loom))]
pub use bus::*;
#[cfg(not(loom))]
pub use control::{DirectoryError, NodeId, Refusal};
pub use frame::{Code, Encoding};
pub use ring::Corrupt;
#[cfg(not(loom))]
pub use wake::Wait;

/// Not part of the API: what the benches and the fuzz targets reach.
#[doc(hidden)]
pub mod internals {
    pub mod frame {
        pub use crate::frame::*;
    }
}
