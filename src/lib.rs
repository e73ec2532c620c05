//! A message bus between the processes of one Linux host, over sealed shared memory.

#[cfg(not(target_os = "linux"))]
compile_error!("ringbus needs Linux: it is built on memfd seals, eventfd, pidfd and membarrier");

mod frame;
mod ring;
mod segment;
mod sys;
