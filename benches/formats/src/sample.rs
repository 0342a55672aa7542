//! The messages that are compared, and what a reader must find in them.

use crate::visit::Visit;
use std::{fmt::Write, sync::LazyLock};

/// Which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A status update with 16 metrics, by their names.
    Status,
    /// The same, with numbers that the session gave to the names.
    Numbers,
    /// An assignment with 2 KB of JSON parameters.
    Assignment,
    /// An assignment with 100 KB of JSON parameters.
    Text,
    /// A piece of a log: 100 KB that do not compress.
    Bytes,
}

impl Kind {
    /// All, in the order of the tables.
    pub const ALL: [Kind; 5] = [Kind::Status, Kind::Numbers, Kind::Assignment, Kind::Text, Kind::Bytes];

    /// Its name in files.
    pub fn id(self) -> &'static str {
        match self {
            Kind::Status => "status",
            Kind::Numbers => "numbers",
            Kind::Assignment => "assignment",
            Kind::Text => "text",
            Kind::Bytes => "bytes",
        }
    }

    /// The message. One for the whole process, so that formats may borrow from it.
    pub fn sample(self) -> &'static Sample {
        static SAMPLES: LazyLock<[Sample; 5]> = LazyLock::new(|| Kind::ALL.map(Sample::new));
        &SAMPLES[self as usize]
    }
}

/// A message as the tasks of this comparison know it, without any format.
pub struct Sample {
    /// Which.
    pub kind: Kind,
    /// Of a status update: the metrics.
    pub metrics: Vec<(String, f64)>,
    /// Of an assignment: JSON text.
    pub parameters: String,
    /// Of a piece of a log.
    pub data: Vec<u8>,
}

/// The task of all messages, and its attempt.
pub const TASK_ID: &str = "7.0.42";
pub const ATTEMPT: u32 = 1;
/// Running.
pub const STATUS: u8 = 1;
pub const PROGRESS: f32 = 0.5;
/// Inferencer.
pub const AGENT_TYPE: u8 = 1;
pub const CPU: u32 = 500;
pub const MEMORY: u32 = 512;
pub const GPU: u32 = 1;
pub const STORAGE: u32 = 4;
/// S3.
pub const STORAGE_BACKEND: u8 = 1;
pub const TIMEOUT_S: u64 = 3_600;
pub const INCARNATION: u64 = 12;
pub const COMMAND: &str = "/usr/bin/train";
pub const ARGUMENTS: [&str; 4] = ["--epochs", "7", "--data", "/data/images"];
pub const ENVIRONMENT: [(&str, &str); 2] = [("MODEL", "resnet-50"), ("CUDA_VISIBLE_DEVICES", "0")];
pub const PRIORITY: i8 = 3;
pub const POSITION: u64 = 1_234_567;
pub const MAC: [u8; 16] = [0xa7; 16];
pub const KILL_GRACE_MS: u32 = 5_000;
pub const RESULT_PATH: &str = "out/metrics.json";
pub const JOB_KEY: u64 = 0x8f3a_11c2_04d7_6b59;
pub const REQUEST: u64 = 991;
/// stdout.
pub const LOG_STREAM: u8 = 0;
pub const OFFSET: u64 = 3_276_800;
pub const SIZE: u64 = OFFSET + 100 * 1_024;

/// A number's name, as the session's table has it.
pub fn metric_name(number: u16) -> Option<&'static str> {
    Kind::Numbers.sample().metrics.get(usize::from(number)).map(|(name, _)| &**name)
}

impl Sample {
    fn new(kind: Kind) -> Sample {
        let metrics = match kind {
            // Measured values have all their digits, as these do.
            Kind::Status | Kind::Numbers => {
                (0..16).map(|n| (format!("train.layer_{n}.loss"), 1.0 / f64::from(n + 3))).collect()
            }
            _ => Vec::new(),
        };
        let parameters = match kind {
            Kind::Assignment => json_text(2 << 10),
            Kind::Text => json_text(100 << 10),
            _ => String::new(),
        };
        let data = if kind == Kind::Bytes { noise(100 << 10) } else { Vec::new() };
        Sample { kind, metrics, parameters, data }
    }

    /// Shows every field, as every format must show it.
    pub fn show(&self, visitor: &mut impl Visit) {
        match self.kind {
            Kind::Status | Kind::Numbers => {
                visitor.text(TASK_ID);
                visitor.number(ATTEMPT.into());
                visitor.number(STATUS.into());
                visitor.float(PROGRESS.into());
                for (name, value) in &self.metrics {
                    visitor.text(name);
                    visitor.float(*value);
                }
            }
            Kind::Assignment | Kind::Text => self.show_assignment(visitor),
            Kind::Bytes => {
                visitor.number(REQUEST);
                visitor.text(TASK_ID);
                visitor.number(ATTEMPT.into());
                visitor.number(LOG_STREAM.into());
                visitor.number(OFFSET);
                visitor.bytes(&self.data);
                visitor.number(SIZE);
            }
        }
    }

    fn show_assignment(&self, visitor: &mut impl Visit) {
        visitor.text(TASK_ID);
        visitor.number(ATTEMPT.into());
        visitor.number(AGENT_TYPE.into());
        for number in [CPU, MEMORY, GPU, STORAGE] {
            visitor.number(number.into());
        }
        visitor.number(STORAGE_BACKEND.into());
        visitor.number(TIMEOUT_S);
        visitor.number(INCARNATION);
        visitor.text(COMMAND);
        for argument in ARGUMENTS {
            visitor.text(argument);
        }
        for (key, value) in ENVIRONMENT {
            visitor.text(key);
            visitor.text(value);
        }
        visitor.text(&self.parameters);
        visitor.number(PRIORITY as u64);
        visitor.number(POSITION);
        visitor.bytes(&MAC);
        visitor.number(KILL_GRACE_MS.into());
        visitor.text(RESULT_PATH);
        visitor.number(JOB_KEY);
    }
}

/// Text as jobs carry it: it compresses about threefold.
fn json_text(bytes: usize) -> String {
    let mut text = String::from("{\"samples\":[");
    let mut random = Random(1);
    while text.len() < bytes {
        let (a, b) = (random.next() % 100_000, random.next() % 1_000);
        write!(text, "{{\"id\":{a},\"label\":\"class_{}\",\"score\":0.{b:03}}},", a % 17).unwrap();
    }
    text.truncate(bytes);
    text
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut random = Random(2);
    (0..bytes).map(|_| random.next() as u8).collect()
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}
