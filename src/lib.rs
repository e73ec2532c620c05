//! A message bus between the processes of one Linux host, over sealed shared memory.

#[cfg(not(target_os = "linux"))]
compile_error!("ringbus needs Linux: it is built on memfd seals, eventfd, pidfd and membarrier");

mod frame;
#[allow(dead_code, unused_imports)] // consumed as the upper layers land
mod ring;
#[allow(dead_code, unused_imports)] // consumed as the upper layers land
mod segment;
#[allow(dead_code)] // consumed as the upper layers land
mod sys;

/// Not part of the API: what the benches and the fuzz targets reach.
#[doc(hidden)]
pub mod internals {
    pub mod frame {
        pub use crate::frame::*;
    }
}
