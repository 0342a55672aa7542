//! Zenoh over TLS, from each client straight to the scheduler: no router in between.

use crate::{
    free_port,
    load::{Client, Load},
    process::Control,
    tag,
};
use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
};
use tokio::sync::{Mutex, mpsc};
use zenoh::{Session, pubsub::Publisher, qos::CongestionControl};

fn config(folder: &str, entries: &[(&str, String)]) -> zenoh::Config {
    let mut config = zenoh::Config::default();
    let file = |name: &str| format!("\"{folder}/{name}\"");
    let fixed = [
        ("scouting/multicast/enabled", "false".to_owned()),
        ("scouting/gossip/enabled", "false".to_owned()),
        ("transport/link/tls/root_ca_certificate", file("cert.pem")),
        ("transport/link/tls/listen_certificate", file("cert.pem")),
        ("transport/link/tls/listen_private_key", file("key.pem")),
    ];
    for (key, value) in fixed.iter().chain(entries) {
        config.insert_json5(key, value).unwrap();
    }
    config
}

pub async fn serve(folder: &Path, control: Arc<Control>) -> String {
    let (port, folder) = (free_port(), folder.to_str().unwrap());
    let listen = ("listen/endpoints", format!("[\"tls/localhost:{port}\"]"));
    let session = zenoh::open(config(folder, &[("mode", "\"peer\"".to_owned()), listen])).await.unwrap();
    let (echo, mut echoes) = mpsc::unbounded_channel();
    let on_message = move |sample: zenoh::sample::Sample| {
        tag::check(&sample.payload().to_bytes());
        control.messages.fetch_add(1, Relaxed);
        if control.echo.load(Relaxed) {
            let _ = echo.send(());
        }
    };
    session.declare_subscriber("m").callback(on_message).background().await.unwrap();
    let answers = session.declare_publisher("r").express(true).await.unwrap();
    tokio::spawn(async move {
        while echoes.recv().await.is_some() {
            answers.put(tag::signed()).await.unwrap();
        }
        drop(session);
    });
    format!("{port} {folder}")
}

pub struct Zenoh {
    _session: Session,
    publisher: Publisher<'static>,
    express: Publisher<'static>,
    answers: Mutex<mpsc::UnboundedReceiver<()>>,
}

pub async fn connect(address: String, number: usize) -> Zenoh {
    let (port, folder) = address.split_once(' ').unwrap();
    let connect = ("connect/endpoints", format!("[\"tls/localhost:{port}\"]"));
    let session = zenoh::open(config(folder, &[("mode", "\"client\"".to_owned()), connect])).await.unwrap();
    let (answered, answers) = mpsc::unbounded_channel();
    if number == 0 {
        let on_answer = move |sample: zenoh::sample::Sample| {
            tag::check(&sample.payload().to_bytes());
            let _ = answered.send(());
        };
        session.declare_subscriber("r").callback(on_answer).background().await.unwrap();
    }
    let publisher = session.declare_publisher("m").congestion_control(CongestionControl::Block).await.unwrap();
    let express = session.declare_publisher("m").congestion_control(CongestionControl::Block).express(true).await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    Zenoh { _session: session, publisher, express: express.unwrap(), answers: Mutex::new(answers) }
}

impl Client for Zenoh {
    async fn send(&self, load: Load) {
        let publisher = if load.burst == 1 { &self.express } else { &self.publisher };
        for _ in 0..load.burst {
            publisher.put(tag::signed()).await.unwrap();
        }
        tokio::task::yield_now().await;
    }

    async fn echo(&self) {
        self.send(Load::new(256, 1, 1)).await;
        let _ = self.answers.lock().await.recv().await;
    }

    async fn receive(&self) {
        std::future::pending().await
    }
}
