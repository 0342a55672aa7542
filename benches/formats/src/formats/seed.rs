//! Seed 003's own: a JSON message (its section 2) whose large content is the whole message once more, gzipped and in base64
//! (section 9.2), done as its text does it, down to `Value` and its new buffers. The text has no signature; it is given
//! the same as the others.

use super::types::Message;
use crate::{
    Format, Refused,
    framing::{Compression, Framing, GZIP_BYTES_MIN, Header, NOW_MS, Order},
    sample::Sample,
    visit::Visit,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::DateTime;
use flate2::{Compression as Level, read::GzDecoder, write::GzEncoder};
use fleetwire_common::limits::BODY_BYTES_MAX;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    hint::black_box,
    io::{Read, Write},
};

#[derive(Clone, Serialize, Deserialize)]
struct SupervisorMessage {
    id: String,
    source: String,
    destination: String,
    message_type: String,
    content: Value,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
    priority: Option<String>,
    version: String,
}

/// JSON, from 256 bytes on with gzip and base64.
pub struct Seed {
    message: Message<'static>,
    framing: Framing,
    order: Order,
}

impl Format for Seed {
    fn new(sample: &'static Sample) -> Self {
        Seed { message: Message::from(sample), framing: Framing::new(Compression::Without), order: Order::default() }
    }

    fn seal(&mut self, out: &mut Vec<u8>) {
        let header = self.order.next();
        let content = serde_json::to_value(black_box(&self.message)).unwrap();
        let message = compress(SupervisorMessage {
            id: format!("msg_{:012x}", header.sequence),
            source: "agent".into(),
            destination: "scheduler".into(),
            message_type: "task_progress".into(),
            content,
            timestamp: DateTime::from_timestamp_millis(NOW_MS as i64).unwrap().to_rfc3339(),
            correlation_id: None,
            ttl: None,
            priority: Some("normal".into()),
            version: "1.0".into(),
        });
        self.framing.seal(out, |out| serde_json::to_writer(out, &message).unwrap());
    }

    fn open<V: Visit>(&mut self, frame: &[u8], visitor: &mut V) -> Result<(), Refused> {
        let message: SupervisorMessage =
            serde_json::from_slice(self.framing.open(frame)?).map_err(Refused::malformed)?;
        let message = if message.message_type.starts_with("compressed:") { decompress(message)? } else { message };
        self.order.check(header(&message).ok_or(Refused::Order)?)?;
        let content: Message<'_> = black_box(Deserialize::deserialize(&message.content).map_err(Refused::malformed)?);
        if V::READS { content.show(visitor).ok_or(Refused::Order) } else { Ok(()) }
    }
}

fn compress(message: SupervisorMessage) -> SupervisorMessage {
    let json = serde_json::to_string(&message).unwrap();
    if json.len() < GZIP_BYTES_MIN {
        return message;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Level::default());
    encoder.write_all(json.as_bytes()).unwrap();
    let content = BASE64_STANDARD.encode(encoder.finish().unwrap());
    let message_type = format!("compressed:{}", message.message_type);
    SupervisorMessage { content: Value::String(content), message_type, ..message }
}

fn decompress(message: SupervisorMessage) -> Result<SupervisorMessage, Refused> {
    let content = message.content.as_str().ok_or(Refused::malformed("content is not a string"))?;
    let data = BASE64_STANDARD.decode(content).map_err(Refused::malformed)?;
    let mut json = String::new();
    // The text has no bound here, which is no comparison for anybody who has one.
    GzDecoder::new(&*data).take(BODY_BYTES_MAX as u64).read_to_string(&mut json).map_err(Refused::malformed)?;
    let mut original: SupervisorMessage = serde_json::from_str(&json).map_err(Refused::malformed)?;
    original.id = message.id;
    original.timestamp = message.timestamp;
    Ok(original)
}

fn header(message: &SupervisorMessage) -> Option<Header> {
    let sequence = u64::from_str_radix(message.id.strip_prefix("msg_")?, 16).ok()?;
    let timestamp = u64::try_from(DateTime::parse_from_rfc3339(&message.timestamp).ok()?.timestamp_millis()).ok()?;
    let version = if message.version == "1.0" { 1 } else { 0 };
    Some(Header { version, timestamp, stream: 0, sequence })
}
