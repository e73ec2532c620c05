use super::*;
#[derive(Debug, Args)]
pub(super) struct Options {}
pub(super) fn run(_: &Common, _: &Options) -> Outcome {
    Ok(())
}
