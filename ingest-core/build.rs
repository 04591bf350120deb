//! Makes the Rust code of the service between the planes from `proto/devices.proto`. The compiler is a crate, so that a
//! build needs no protoc.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const PROTO: &str = "../proto/devices.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTO}");
    let descriptors = protox::compile([PROTO], ["../proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Reflection serves these bytes.
    std::fs::write(out.join("devices.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
