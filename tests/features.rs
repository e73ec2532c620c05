//! What CI must not leave out by accident.

/// Cargo passes over tests whose features are off without a word; in CI that is a failure.
#[test]
fn every_feature_is_on_where_it_counts() {
    assert!(
        cfg!(all(feature = "cli", feature = "pipe", feature = "tower")) || std::env::var_os("CI").is_none(),
        "run `cargo test --all-features`: the tests of the command, of pipes or of tower were not built"
    );
}
