//! MQTT 3.1.1, QoS 0, without TLS (which favours it): clients publish to mosquitto, the scheduler subscribes.

use crate::{
    Broker, free_port, listens,
    load::{Client, Load},
    process::Control,
    tag,
};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
};
use tokio::sync::{Mutex, mpsc};

/// Starts mosquitto, if it is installed; its port is in the folder.
pub fn broker(folder: &Path) -> Option<Broker> {
    let (port, config) = (free_port(), folder.join("mosquitto.conf"));
    std::fs::write(folder.join("mqtt.port"), port.to_string()).unwrap();
    let text =
        format!("listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nset_tcp_nodelay true\n");
    std::fs::write(&config, text).unwrap();
    Broker::start(&["mosquitto", "/usr/sbin/mosquitto"], &["-c", config.to_str().unwrap()])
}

fn dial(port: u16, name: String) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(name, "127.0.0.1", port);
    options.set_keep_alive(std::time::Duration::from_secs(60));
    AsyncClient::new(options, 64)
}

pub async fn serve(folder: &Path, control: Arc<Control>) -> String {
    let port: u16 = std::fs::read_to_string(folder.join("mqtt.port")).unwrap().parse().unwrap();
    listens(port).await;
    let (client, mut events) = dial(port, "scheduler".to_owned());
    client.subscribe("m", QoS::AtMostOnce).await.unwrap();
    while !matches!(events.poll().await.unwrap(), Event::Incoming(Packet::SubAck(_))) {}
    tokio::spawn(async move {
        loop {
            let Event::Incoming(Packet::Publish(message)) = events.poll().await.unwrap() else { continue };
            tag::check(&message.payload);
            control.messages.fetch_add(1, Relaxed);
            if control.echo.load(Relaxed) {
                client.publish("r", QoS::AtMostOnce, false, tag::signed()).await.unwrap();
            }
        }
    });
    port.to_string()
}

pub struct Mqtt {
    client: AsyncClient,
    answers: Mutex<mpsc::Receiver<()>>,
}

pub async fn connect(address: String, number: usize) -> Mqtt {
    let (client, mut events) = dial(address.parse().unwrap(), format!("a{number}"));
    if number == 0 {
        client.subscribe("r", QoS::AtMostOnce).await.unwrap();
        while !matches!(events.poll().await.unwrap(), Event::Incoming(Packet::SubAck(_))) {}
    }
    let (answered, answers) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok(event) = events.poll().await {
            if let Event::Incoming(Packet::Publish(message)) = event {
                tag::check(&message.payload);
                let _ = answered.try_send(());
            }
        }
    });
    Mqtt { client, answers: Mutex::new(answers) }
}

impl Client for Mqtt {
    async fn send(&self, load: Load) {
        for _ in 0..load.burst {
            self.client.publish("m", QoS::AtMostOnce, false, tag::signed()).await.unwrap();
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
