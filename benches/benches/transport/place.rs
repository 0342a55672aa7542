//! A cluster's keys in a folder that parent and server share, and the messages that travel.

use fleetwire_common::{
    envelope::{
        Features, Opener, Sealer,
        keys::{Epoch, MacKey, RootKeys, Secret},
    },
    fb,
    ids::{AttemptId, JobId, TaskId},
    message::{Ack, Heartbeat, Message, Status},
    resources::Resources,
    time::Time,
};
use fleetwire_link::{Authority, ServerIdentity};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::SystemTime,
};

pub const CLUSTER: &str = "bench";

/// Who is trusted, and as whom a server shows itself.
pub struct Place {
    pub authority: Authority,
    pub server: ServerIdentity,
}

impl Place {
    /// Makes one and writes it down.
    pub fn make(folder: &Path) -> Place {
        let now = now();
        let authority = Authority::create(CLUSTER, now).unwrap();
        let server = authority.certify_server(now).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        write("authority.pem", &authority.certificate_pem());
        write("authority.key", &authority.key_pem());
        write("server.pem", &server.certificate_pem());
        write("server.key", &server.key_pem());
        Place { authority, server }
    }

    pub fn read(folder: &Path) -> Place {
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        let authority = Authority::from_pem(CLUSTER, &read("authority.pem"), &read("authority.key")).unwrap();
        let server = ServerIdentity::from_pem(&authority, &read("server.pem"), &read("server.key")).unwrap();
        Place { authority, server }
    }

    pub fn server_name(&self) -> String {
        format!("scheduler.{CLUSTER}.fleetwire")
    }

    pub fn server_tls(&self, protocol: &[u8]) -> rustls::ServerConfig {
        let chain = vec![CertificateDer::from_pem_slice(self.server.certificate_pem().as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.server.key_pem().as_bytes()).unwrap();
        let mut config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        config.send_tls13_tickets = 0;
        config
    }

    pub fn client_tls(&self, protocol: &[u8]) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(self.authority.certificate().to_vec())).unwrap();
        let mut config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        config
    }
}

pub fn now() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Time(u64::try_from(since.as_micros()).unwrap())
}

pub fn root() -> RootKeys {
    RootKeys::new(Secret::new([1; 32]))
}

pub fn epoch() -> Epoch {
    Epoch { number: 1, secret: Secret::new([2; 32]) }
}

/// Both ends of a session without its handshake.
pub fn codec(features: Features) -> (Sealer, Opener) {
    let key = MacKey::new(&Secret::new([3; 32]));
    (Sealer::new(key.clone(), 1, features), Opener::new(key, 1))
}

/// A message whose frame has so many bytes when it travels alone; the smallest there is, if that is
/// larger. Nothing in it can be compressed.
pub fn message(bytes: usize) -> Message {
    static MADE: Mutex<Vec<(usize, Message)>> = Mutex::new(Vec::new());
    let mut made = MADE.lock().unwrap();
    if let Some((_, message)) = made.iter().find(|(of, _)| *of == bytes) {
        return message.clone();
    }
    let empty = Message::Ack(Ack::Request(1));
    let message = if bytes <= frame_bytes(&empty) {
        empty
    } else if frame_bytes(&filled(0, bytes)) > bytes {
        panic!("nothing has a frame of {bytes} bytes");
    } else {
        let most = (0..=bytes).rev().find(|fill| frame_bytes(&filled(*fill, bytes)) <= bytes);
        filled(most.unwrap(), bytes)
    };
    made.push((bytes, message.clone()));
    message
}

pub fn heartbeat() -> Message {
    let usage = Resources { cpu: 250, memory: 100, gpu: 0, storage: 1 };
    Message::Heartbeat(Heartbeat { usage, running: 1, answer: false })
}

/// The length of its frame, when it travels alone.
pub fn frame_bytes(message: &Message) -> usize {
    let (mut sealer, _) = codec(Features::ALL);
    let mut out = Vec::new();
    if sealer.seal(now().as_ms(), std::slice::from_ref(message), &mut out) == 0 {
        sealer.seal_bulk(now().as_ms(), 1, message, &mut out).unwrap();
    }
    out.len()
}

/// A status update with a note of so many bytes, or a piece of a log where it is to be larger.
fn filled(fill: usize, of: usize) -> Message {
    let mut random = 1u64;
    let noise = std::iter::repeat_with(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 56) as u8
    });
    if of > 512 {
        let chunk = fb::LogChunkT { request: 1, data: Some(noise.take(fill).collect()), ..Default::default() };
        return Message::Rare(fb::SchedulerMessageT::LogChunk(Box::new(chunk)));
    }
    let attempt = AttemptId { task: TaskId { job: JobId(7), entry: 0, index: 1 }, attempt: 1 };
    let note = noise.map(|byte| char::from(b'a' + byte % 26)).take(fill).collect();
    let status = fb::TaskStatus::Running;
    Message::Status(Status {
        attempt,
        status,
        progress: 0.5,
        note,
        metrics: vec![],
        end: None,
        job_key: Default::default(),
    })
}
