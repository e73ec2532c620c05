//! The control plane in virtual time (`net`), then over real sockets (`bus`).

use crate::frame::Control;

mod bus;
mod crossing;
mod deaths;
mod directory;
mod handshake;
mod hostile;
mod net;
mod session;
mod violations;

fn encode(control: &Control<'_>) -> Vec<u8> {
    super::session::encode(control).expect("within its limits")
}
