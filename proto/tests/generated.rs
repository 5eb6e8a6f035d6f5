//! The checked-in code is what the `.proto` files say. After changing them, write it anew:
//!
//! ```text
//! FANFARE_PROTO=write cargo test -p fanfare-proto --test generated
//! ```

use std::path::{Path, PathBuf};

use prost::Message;

const FILES: [&str; 4] = ["event", "endpoint", "subscription", "delivery"];

#[test]
fn generated_code_is_what_the_proto_files_say() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checked_in = crate_dir.join("src/gen");
    let fresh = tempfile::tempdir().unwrap();
    generate(crate_dir, fresh.path());
    for name in ["fanfare.v1.rs", "fanfare.v1.bin"] {
        let want = std::fs::read(fresh.path().join(name)).unwrap();
        if std::env::var("FANFARE_PROTO").is_ok_and(|v| v == "write") {
            std::fs::write(checked_in.join(name), &want).unwrap();
        }
        assert!(
            std::fs::read(checked_in.join(name)).unwrap_or_default() == want,
            "src/gen/{name} is not what the .proto files say; run \
             FANFARE_PROTO=write cargo test -p fanfare-proto --test generated"
        );
    }
}

fn generate(crate_dir: &Path, out: &Path) {
    let files: Vec<PathBuf> = FILES
        .iter()
        .map(|name| crate_dir.join(format!("fanfare/v1/{name}.proto")))
        .collect();
    let mut compiler = protox::Compiler::new([crate_dir]).expect("the crate is there");
    compiler
        .include_imports(true)
        .open_files(files)
        .expect("the .proto files compile");
    // With comments for the generated docs, without them for reflection.
    let commented = compiler.include_source_info(true).file_descriptor_set();
    let mut plain = commented.clone();
    plain
        .file
        .iter_mut()
        .for_each(|f| f.source_code_info = None);
    std::fs::write(out.join("fanfare.v1.bin"), plain.encode_to_vec())
        .expect("the target is writable");
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .out_dir(out)
        .compile_fds(commented)
        .expect("code can be generated");
}
