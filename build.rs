//! Proves that the checked-in generated FlatBuffers code was made from today's schemas, so that a
//! fresh machine needs no flatc. Used by the `schemas` crate (`build = "../build.rs"`).

use sha2::{Digest, Sha256};
use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let mut schemas: Vec<_> = fs::read_dir(&folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "fbs"))
        .collect();
    schemas.sort();

    let mut hash = Sha256::new();
    for path in &schemas {
        println!("cargo:rerun-if-changed={}", path.display());
        let name = path.file_name().and_then(|name| name.to_str()).ok_or("schema name is not UTF-8")?;
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update(fs::read(path)?);
        hash.update([0]);
    }
    let stamp: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();

    for name in ["src/generated.rs", "src/verifier_generated.rs"] {
        let generated = folder.join(name);
        println!("cargo:rerun-if-changed={}", generated.display());
        let text = fs::read_to_string(&generated)?;
        let found = text.lines().next().unwrap_or_default();
        if !found.contains(&stamp) {
            return Err(format!(
                "schemas/{name} is stale: it was not made from today's schemas/*.fbs. \
                 Run `node schemas/regenerate.mjs` (its first lines say how) and commit the result.",
            )
            .into());
        }
    }
    Ok(())
}
