//! The real sessions: enrolment keys, `Hello` and `Welcome`, session keys; sealed by the link's writer, and
//! opened as the scheduler does it, by a task of its own behind a queue, up to the core's event.

use super::{
    load::{Client, Load},
    place::{self, Place},
    process::{Control, Sending},
};
use fleetwire_common::{
    envelope::{
        Features, Opener,
        handshake::{HelloInfo, WelcomeInfo},
    },
    fb,
    ids::{Name, Principal, SessionId},
    message::Message,
};
use fleetwire_link::{Accepted, ClusterClock, DeviceKey, Frame, Link, LinkConfig, Listener, Receiver, Sender, connect};
use fleetwire_scheduler_core::{Event, Origin};
use std::{
    collections::{BTreeMap, VecDeque},
    hint::black_box,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    sync::{Mutex, mpsc},
    task::yield_now,
    time::{MissedTickBehavior, interval},
};

/// As many as the scheduler lets wait.
const INPUTS_MAX: usize = 1_024;

enum Input {
    Connected(u64, Sender, Box<Opener>),
    Frames(u64, VecDeque<Frame>),
}

pub async fn serve(place: &Place, control: Arc<Control>) -> String {
    let clock = ClusterClock::starting_at(place::now());
    let config = LinkConfig { handshakes_max: 4_096, ..LinkConfig::default() };
    let any = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(any, &place.server, Arc::new(place::root()), clock.clone(), config).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (inputs, came) = mpsc::channel(INPUTS_MAX);
    tokio::spawn(drive(came, control));
    tokio::spawn(accept(listener, clock, inputs));
    address
}

async fn accept(mut listener: Listener, clock: ClusterClock, inputs: mpsc::Sender<Input>) {
    let mut session = 0;
    while let Some(accepted) = listener.accept().await {
        let Accepted::Session(pending) = accepted else { panic!("{accepted:?}") };
        let info = WelcomeInfo {
            features: Features::ALL,
            cluster_time: clock.now(),
            incarnation: 1,
            receipt: None,
            cluster: place::CLUSTER.to_owned(),
            software: "bench".to_owned(),
        };
        let Link { sender, receiver, opener } = pending.welcome(&place::epoch(), &info).unwrap();
        session += 1;
        inputs.send(Input::Connected(session, sender, Box::new(opener))).await.unwrap();
        tokio::spawn(hand_over(session, receiver, inputs.clone()));
    }
}

/// As the scheduler's network does it.
async fn hand_over(session: u64, mut receiver: Receiver, inputs: mpsc::Sender<Input>) {
    loop {
        let mut frames = Vec::new();
        if receiver.recv_many(&mut frames).await.is_err() {
            return;
        }
        inputs.send(Input::Frames(session, frames.into())).await.unwrap();
    }
}

/// As the scheduler's driver does it: all that has arrived, in order.
async fn drive(mut inputs: mpsc::Receiver<Input>, control: Arc<Control>) {
    let mut peers: BTreeMap<u64, (Sender, Box<Opener>)> = BTreeMap::new();
    let mut asked = control.sending.subscribe();
    let (mut next, mut tick) = (0, interval(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let sending = *asked.borrow_and_update();
        let mut input = tokio::select! {
            biased;
            input = inputs.recv() => Some(input.unwrap()),
            _ = asked.changed() => continue,
            _ = tick.tick(), if sending.connections > 0 => None,
        };
        if input.is_none() {
            send(&peers, sending, &mut next, &control);
        }
        while let Some(came) = input {
            match came {
                Input::Connected(session, sender, opener) => {
                    peers.insert(session, (sender, opener));
                }
                Input::Frames(session, frames) => {
                    let (sender, opener) = peers.get_mut(&session).unwrap();
                    for frame in frames {
                        on_frame(session, &frame, sender, opener, &control);
                    }
                }
            }
            input = inputs.try_recv().ok();
        }
    }
}

/// Opens a frame and makes the core's event of each message; answers where that is asked for.
fn on_frame(session: u64, frame: &Frame, sender: &Sender, opener: &mut Opener, control: &Control) {
    let opened = opener.open(&frame.bytes, frame.stream, frame.arrived_ms, frame.tolerance_ms()).unwrap();
    let (mut count, echo) = (0, control.echo.load(Relaxed));
    for (item, message) in opened.messages() {
        let from = Origin { stream: opened.stream, sequence: opened.sequence, item, timestamp_ms: opened.timestamp_ms };
        black_box(Event::Received { session: SessionId(session), from, message });
        count += 1;
        if echo {
            sender.send(place::message(256)).unwrap();
        }
    }
    control.messages.fetch_add(count, Relaxed);
}

/// What the driver sends in one turn.
fn send(peers: &BTreeMap<u64, (Sender, Box<Opener>)>, sending: Sending, next: &mut usize, control: &Control) {
    let message = place::message(sending.bytes);
    let mut sent = 0;
    let all = peers.values().cycle().skip(*next % peers.len());
    for (sender, _) in all.take(sending.connections.min(peers.len())) {
        // Whoever does not keep up misses some, as where nothing is sealed.
        if sender.messages_waiting() < sending.burst {
            sender.send_many((0..sending.burst).map(|_| message.clone())).unwrap();
            sent += sending.burst;
        }
    }
    *next += sending.connections;
    control.messages.fetch_add(sent as u64, Relaxed);
}

/// An agent's side of a session.
pub struct Ours {
    sender: Sender,
    received: Mutex<(Receiver, Opener)>,
}

impl Ours {
    pub async fn connect(place: &Place, address: &str, number: usize, features: Features) -> Ours {
        let principal = Principal { role: fb::Role::Agent, name: Name::new(&format!("a{number}")).unwrap() };
        let (key, enrolment) = (DeviceKey::generate().unwrap(), place::root().enrolment_key(&principal));
        let addresses = vec![address.to_owned()];
        let identity = place.authority.issue(&principal, key, enrolment, addresses.clone(), place::now()).unwrap();
        let software = "bench".to_owned();
        let hello = HelloInfo { features, boot_id: [0; 16], process_start_id: [0; 16], receipt: None, software };
        let clock = ClusterClock::from_wall();
        let connected = connect(&addresses, &identity, &hello, &clock, &LinkConfig::default()).await.unwrap();
        let Link { sender, receiver, opener } = connected.link;
        Ours { sender, received: Mutex::new((receiver, opener)) }
    }
}

impl Client for Ours {
    async fn send(&self, load: Load) {
        let message = if load.heartbeat { place::heartbeat() } else { place::message(load.bytes) };
        for _ in 0..load.writes {
            match load.burst {
                1 => self.sender.send(message.clone()).unwrap(),
                burst => self.sender.send_many(std::iter::repeat_n(message.clone(), burst)).unwrap(),
            }
        }
        self.sender.drained(load.bytes).await;
        yield_now().await;
    }

    async fn echo(&self) {
        self.sender.send(place::message(256)).unwrap();
        let mut received = self.received.lock().await;
        let (receiver, opener) = &mut *received;
        let mut frames = Vec::new();
        receiver.recv_many(&mut frames).await.unwrap();
        open(&frames, opener);
    }

    async fn receive(&self) {
        let mut received = self.received.lock().await;
        let (receiver, opener) = &mut *received;
        let mut frames = Vec::new();
        loop {
            receiver.recv_many(&mut frames).await.unwrap();
            open(&frames, opener);
            frames.clear();
        }
    }

    fn datagrams(&self) -> u64 {
        self.sender.datagrams_sent()
    }
}

fn open(frames: &[Frame], opener: &mut Opener) {
    for frame in frames {
        let opened = opener.open(&frame.bytes, frame.stream, frame.arrived_ms, frame.tolerance_ms()).unwrap();
        black_box(opened.messages().count());
    }
}

/// A message as bare transports carry it: as long as its frame.
pub fn bytes_of(message: &Message) -> usize {
    place::frame_bytes(message)
}
