//! `wire encode`: JSON into signed frames.

use super::{args::Encode, read, wrong};
use crate::{
    error::CliError,
    wire::{
        build::{self, Builder},
        read::hex,
        schema::Schema,
    },
};
use fleetwire_common::{envelope::SIGNATURE_BYTES, fb};
use serde_json::{Map, Value, json};
use std::io::{IsTerminal as _, Write as _};

/// `wire encode`.
pub fn encode(command: &Encode) -> Result<u8, CliError> {
    let fault = |error: String| wrong(&command.file, error);
    let schema = Schema::ours()?;
    let json: Value =
        serde_json::from_slice(&read(&command.file)?).map_err(|error| fault(format!("it is no JSON: {error}")))?;
    let mut bytes = Vec::new();
    for (number, envelope) in (1..).zip(envelopes(json)) {
        let frame = frame(&schema, command, envelope).map_err(|error| fault(format!("frame {number}: {error}")))?;
        bytes.extend_from_slice(&frame);
    }
    if command.hex {
        bytes = format!("{}\n", hex(&bytes)).into_bytes();
    }
    match &command.output {
        Some(path) => {
            let fault = |error| CliError::File { doing: "write", path: path.clone(), error };
            std::fs::write(path, bytes).map_err(fault)?;
        }
        None if !command.hex && std::io::stdout().is_terminal() => {
            let expected = "somewhere to put bytes: add --output FILE or --hex, or send the output elsewhere";
            return Err(CliError::Argument { found: String::from("a terminal"), expected });
        }
        None => {
            let mut out = std::io::stdout().lock();
            out.write_all(&bytes)?;
            out.flush()?;
        }
    }
    Ok(0)
}

/// The envelopes of what `decode --json` prints, or a single one, by itself or as one frame of that.
fn envelopes(json: Value) -> Vec<Value> {
    let frames = match json {
        Value::Array(frames) => frames,
        one => vec![one],
    };
    let envelope = |mut frame: Value| match frame.get_mut("envelope") {
        Some(envelope) => envelope.take(),
        None => frame,
    };
    frames.into_iter().map(envelope).collect()
}

fn frame(schema: &Schema, command: &Encode, mut envelope: Value) -> Result<Vec<u8>, build::BuildError> {
    forget_shown(&mut envelope);
    if let Some(object) = envelope.as_object_mut() {
        object.entry("timestamp").or_insert_with(|| super::super::now_ms().into());
    }
    if command.pack {
        pack(schema, &mut envelope)?;
    }
    let mut builder = Builder::new();
    // §seal-1
    let tail: Vec<u8> = command.key_id.to_le_bytes().into_iter().chain([0; 32]).collect();
    let signature = builder.create_vector(&tail).as_union_value();
    let root = build::table(schema, "MessageEnvelope", &envelope, &mut builder, &[(SIGNATURE_FIELD, signature)])?;
    builder.finish_size_prefixed(root, None);
    // §seal-3
    let mut frame = builder.finished_data().to_vec();
    frame.truncate(frame.len().saturating_sub(SIGNATURE_BYTES - 4));
    let tag = command.key.0.tag(&frame);
    frame.extend_from_slice(&tag);
    Ok(frame)
}

/// Takes away what `decode` adds for people: it is in the bytes beside it.
fn forget_shown(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|name, _| !name.starts_with('('));
            object.values_mut().for_each(forget_shown);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_shown),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Moves the message or the batch into a compressed body.
fn pack(schema: &Schema, envelope: &mut Value) -> Result<(), build::BuildError> {
    let Some(object) = envelope.as_object_mut() else { return Ok(()) };
    let parts = ["message_type", "message", "batch"];
    let body: Map<String, Value> =
        parts.iter().filter_map(|name| Some(((*name).to_owned(), object.remove(*name)?))).collect();
    if body.is_empty() {
        return Ok(());
    }
    let mut builder = Builder::new();
    let root = build::table(schema, "Body", &Value::Object(body), &mut builder, &[])?;
    builder.finish_minimal(root);
    let raw = builder.finished_data();
    let data = format!("hex:{}", hex(&lz4_flex::block::compress(raw)));
    let compression = fb::Compression::Lz4Block.variant_name();
    object.insert(String::from("packed"), json!({ "compression": compression, "raw_len": raw.len(), "data": data }));
    Ok(())
}

/// `MessageEnvelope.signature`'s id.
const SIGNATURE_FIELD: u16 = 4;
