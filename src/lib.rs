//! A message bus between the processes of one Linux host, over sealed shared memory.

#[cfg(not(target_os = "linux"))]
compile_error!("ringbus needs Linux: it is built on memfd seals, eventfd, pidfd and membarrier");

#[cfg_attr(fuzzing, allow(missing_docs))] // within reach of the fuzz targets only
#[allow(dead_code, unused_imports)] // consumed as the upper layers land
mod control;
mod frame;
#[allow(dead_code, unused_imports)] // consumed as the upper layers land
mod ring;
#[allow(dead_code, unused_imports)] // consumed as the upper layers land
mod segment;
#[allow(dead_code)] // consumed as the upper layers land
mod sys;
#[allow(dead_code, unused_imports)] // consumed as the upper layers land
mod wake;

/// Not part of the API: what the benches and the fuzz targets reach.
#[doc(hidden)]
pub mod internals {
    pub mod frame {
        pub use crate::frame::*;
    }

    /// For `fuzz/fuzz_targets/session.rs` alone, which needs nodes and peers of its own making.
    #[cfg(fuzzing)]
    pub mod control {
        pub use crate::control::{Card, ConnId, Event, Hub, Message, NodeId, PortCard, VERSION};
        pub use crate::sys::credentials::Credentials;

        pub fn node_id(bytes: [u8; 16]) -> NodeId {
            NodeId(bytes)
        }
    }
}
