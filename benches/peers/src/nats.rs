//! NATS: clients publish, the scheduler subscribes. Core NATS, TLS, one subject.

use crate::{
    Broker, free_port, listens,
    load::{Client, Load},
    process::Control,
    tag,
};
use async_nats::{ConnectOptions, Subscriber};
use futures_util::StreamExt;
use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
};
use tokio::sync::Mutex;

/// Starts nats-server, if it is installed; its port is in the folder.
pub fn broker(folder: &Path) -> Option<Broker> {
    let (port, path) = (free_port(), |name: &str| folder.join(name).to_str().unwrap().to_owned());
    std::fs::write(folder.join("nats.port"), port.to_string()).unwrap();
    let (number, cert, key) = (port.to_string(), path("cert.pem"), path("key.pem"));
    let arguments = ["-a", "127.0.0.1", "-p", &number, "--tls", "--tlscert", &cert, "--tlskey", &key];
    Broker::start(&["nats-server", "/usr/sbin/nats-server"], &arguments)
}

async fn dial(address: &str) -> async_nats::Client {
    let (address, folder) = address.split_once(' ').unwrap();
    let options = ConnectOptions::new().require_tls(true).add_root_certificates(Path::new(folder).join("cert.pem"));
    options.connect(format!("tls://{address}")).await.unwrap()
}

pub async fn serve(folder: &Path, control: Arc<Control>) -> String {
    let port = std::fs::read_to_string(folder.join("nats.port")).unwrap();
    listens(port.parse().unwrap()).await;
    let address = format!("localhost:{port} {}", folder.display());
    let client = dial(&address).await;
    let mut messages = client.subscribe("m").await.unwrap();
    client.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(message) = messages.next().await {
            tag::check(&message.payload);
            control.messages.fetch_add(1, Relaxed);
            if control.echo.load(Relaxed) {
                client.publish("r", tag::signed()).await.unwrap();
                client.flush().await.unwrap();
            }
        }
    });
    address
}

pub struct Nats {
    client: async_nats::Client,
    answers: Option<Mutex<Subscriber>>,
}

pub async fn connect(address: String, number: usize) -> Nats {
    let client = dial(&address).await;
    let answers = match number {
        0 => Some(Mutex::new(client.subscribe("r").await.unwrap())),
        _ => None,
    };
    client.flush().await.unwrap();
    Nats { client, answers }
}

impl Client for Nats {
    async fn send(&self, load: Load) {
        for _ in 0..load.burst {
            self.client.publish("m", tag::signed()).await.unwrap();
        }
        self.client.flush().await.unwrap();
    }

    async fn echo(&self) {
        // Whoever answers is asked by the one that listens.
        let Some(answers) = &self.answers else { return tokio::task::yield_now().await };
        self.send(Load::new(256, 1, 1)).await;
        tag::check(&answers.lock().await.next().await.unwrap().payload);
    }

    async fn receive(&self) {
        std::future::pending().await
    }
}
