//! The client and server of `peers/tonic.rs`: described here rather than in a .proto file, which would need protoc.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let method = |name: &str, route: &str| {
        Method::builder().name(name).route_name(route).codec_path("tonic_prost::ProstCodec")
    };
    let block = "crate::peers::tonic::Block";
    let event = "crate::peers::tonic::Event";
    let service = Service::builder()
        .name("Peer")
        .package("peers")
        .method(method("call", "Call").input_type(event).output_type(event).build())
        .method(
            method("echo", "Echo")
                .input_type(block)
                .output_type(block)
                .client_streaming()
                .server_streaming()
                .build(),
        )
        .method(
            method("flood", "Flood")
                .input_type(block)
                .output_type("crate::peers::tonic::Sum")
                .client_streaming()
                .build(),
        )
        .build();
    Builder::new().compile(&[service]);
}
