//! `ringbus send` and `ringbus broadcast`: a value from the command line, to a name or to all.

use clap::Args;

use super::interrupt::Interrupt;
use super::publish::{each_value, header};
use super::{Common, Outcome, advice, end, note, silent};
use crate::{Node, SendError};

/// Send a value to the nodes of a name
#[derive(Debug, Args)]
#[command(after_long_help = "\
Every inbox that a node named NODE has open gets the message: those of programs, and of `ringbus inbox NODE`.
If there is none, that is an error. VALUE is taken as `ringbus pub` takes it, whose --help tells more.")]
pub(super) struct SendOptions {
    /// Name that the receivers joined as
    node: String,
    #[command(flatten)]
    content: Content,
}

/// Send a value to all nodes
#[derive(Debug, Args)]
#[command(after_long_help = "\
Whoever listens to broadcasts gets the message: programs, and `ringbus sub --broadcasts`. VALUE is taken as
`ringbus pub` takes it, whose --help tells more.")]
pub(super) struct BroadcastOptions {
    #[command(flatten)]
    content: Content,
}

#[derive(Debug, Args)]
struct Content {
    /// JSON, else text; `-` reads one value a line from stdin [default: null]
    #[arg(allow_negative_numbers = true)]
    value: Option<String>,
    /// Take the value as text, whatever it looks like
    #[arg(long)]
    text: bool,
    /// Add a header; may be repeated
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
}

pub(super) fn run(common: &Common, options: &SendOptions) -> Outcome {
    let node = common.join("ringbus-send")?;
    options.content.send(common, &node, Some(&options.node))
}

pub(super) fn run_broadcast(common: &Common, options: &BroadcastOptions) -> Outcome {
    let node = common.join("ringbus-broadcast")?;
    if !somebody_listens(&node) {
        note(format!("note: nobody listens to broadcasts on bus {}", node.bus().name()));
    }
    options.content.send(common, &node, None)
}

impl Content {
    /// Sends the value, or each of those on stdin, to the nodes of a name or to all.
    fn send(&self, common: &Common, node: &Node, to: Option<&str>) -> Outcome {
        let (interrupt, headers) = (Interrupt::new()?, &self.headers);
        let sent = each_value(self.value.as_deref(), self.text, &interrupt, |value| {
            interrupt.check()?;
            let sent = match to {
                Some(name) => {
                    let letter = node.message_to(name, &value);
                    headers.iter().fold(letter, |letter, (key, value)| letter.header(key, value)).send()
                }
                None => {
                    let letter = node.message_to_all(&value);
                    headers.iter().fold(letter, |letter, (key, value)| letter.header(key, value)).send()
                }
            };
            if matches!(sent, Err(SendError::NotFound { .. })) {
                silent::note_all(common, node);
            }
            sent.map_err(advice::of_send)
        });
        end(node, sent)
    }
}

fn somebody_listens(node: &Node) -> bool {
    let peers = node.peers();
    let mut ports = peers.iter().flat_map(|peer| peer.ports());
    ports.any(|port| port.role == "subscriber" && port.filters.iter().any(|filter| filter == "@all"))
}
