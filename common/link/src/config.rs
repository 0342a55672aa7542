//! What a link's owner may choose, with what each choice costs. The defaults were measured; the figures
//! are from a 2-core x86-64 machine.

use fleetwire_common::limits::{BODY_BYTES_MAX, BULK_STREAMS_MAX, FRAME_BYTES_MAX};
use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use std::{sync::Arc, time::Duration};

/// Settings of all links of a listener, or of one connection.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkConfig {
    /// A connection that was silent for this long is lost. 120 s, four heartbeats: the usual 30 s would
    /// race a heartbeat every 30 s. There is no keep-alive besides heartbeats: it costs 35 % more bytes.
    pub idle_timeout: Duration,
    /// From the first packet to the opened session; a connection that takes longer is closed. 10 s suits
    /// links with a second of round trip and some loss.
    pub handshake_timeout: Duration,
    /// Unread bytes that a peer may send on one stream. 64 KiB: the default of a megabyte bloats buffers
    /// under a thousand writers (26–51 k messages/s instead of 377–547 k); 16 KiB costs 40 % of the rate.
    pub stream_window_bytes: u32,
    /// Unread bytes that a peer may send on all streams; bounds the memory that a peer can take. The control
    /// stream always finds room: bulk streams are written one at a time.
    pub receive_window_bytes: u32,
    /// Bytes that were handed to the transport and not acknowledged. About 1 s at 1 Mbit/s: what waits here
    /// was sealed already and ages; it is lowered for slower links while they are slow.
    pub send_window_bytes: u64,
    /// Looks for larger datagrams than 1,200 bytes. Fewer packets for bulk; costs 2.5 KB a connection.
    pub mtu_discovery: bool,
    /// Many datagrams with one system call (GSO). 1.7 × the rate at 16 messages a write.
    pub segmentation_offload: bool,
    /// Packets that the peer may leave unacknowledged at a time (draft-ietf-quic-ack-frequency); what is fewer it acknowledges
    /// after 25 ms at the latest, and what came out of order at once. `None` leaves it to the peer: every second
    /// packet, which is a sixth of what a message that travels alone costs the one that receives it.
    pub ack_threshold: Option<u32>,
    /// Messages that may wait to be sent on a link. When it is full, the link ends (reconcile repairs).
    pub queue_messages_max: usize,
    /// Approximate bytes of those messages on the wire.
    pub queue_bytes_max: usize,
    /// Approximate bytes of messages that wait for bulk streams. At least one largest body.
    pub bulk_queue_bytes_max: usize,
    /// How long a closing link may take to send what is queued.
    pub drain_timeout: Duration,
    /// Handshakes that a listener lets run at a time; beyond half of them, addresses must prove themselves, and no network has
    /// more than a quarter. As many as one core makes, 2,000 a second, while devices on slow links take half a second for theirs.
    /// Each takes about 35 KB.
    pub handshakes_max: usize,
    /// Connections that a listener holds; more are refused. Each costs about 30 KB.
    pub connections_max: usize,
}

impl Default for LinkConfig {
    fn default() -> LinkConfig {
        LinkConfig {
            // §transport-5
            idle_timeout: Duration::from_secs(120),
            handshake_timeout: Duration::from_secs(10),
            stream_window_bytes: 64 << 10,
            receive_window_bytes: 192 << 10,
            send_window_bytes: 128 << 10,
            mtu_discovery: true,
            segmentation_offload: true,
            ack_threshold: Some(10),
            queue_messages_max: 65_536,
            queue_bytes_max: 16 << 20,
            bulk_queue_bytes_max: 2 * BODY_BYTES_MAX,
            drain_timeout: Duration::from_secs(2),
            handshakes_max: 1_024,
            connections_max: 100_000,
        }
    }
}

/// Why settings are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("link setting {setting} is {found}: expected {expected}")]
pub struct ConfigError {
    /// Which one.
    pub setting: &'static str,
    /// Its value.
    pub found: u128,
    /// What would do.
    pub expected: &'static str,
}

impl LinkConfig {
    /// Checks the settings and makes the transport's. `peer_streams`: bidirectional streams that the peer
    /// may open; the transport preallocates for each, so it is exactly what the protocol needs.
    pub(crate) fn transport(&self, peer_streams: u32) -> Result<Arc<TransportConfig>, ConfigError> {
        self.check()?;
        let idle = IdleTimeout::try_from(self.idle_timeout).map_err(|_| ConfigError {
            setting: "idle_timeout",
            found: self.idle_timeout.as_millis(),
            expected: "at most 2^62 ms",
        })?;
        let mut transport = TransportConfig::default();
        transport
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(None)
            .stream_receive_window(VarInt::from_u32(self.stream_window_bytes))
            .receive_window(VarInt::from_u32(self.receive_window_bytes))
            .send_window(self.send_window_bytes)
            .max_concurrent_bidi_streams(VarInt::from_u32(peer_streams))
            .max_concurrent_uni_streams(VarInt::from_u32(BULK_STREAMS_MAX as u32))
            .datagram_receive_buffer_size(None)
            .mtu_discovery_config(self.mtu_discovery.then(MtuDiscoveryConfig::default))
            .enable_segmentation_offload(self.segmentation_offload);
        if let Some(threshold) = self.ack_threshold {
            let mut acks = AckFrequencyConfig::default();
            acks.ack_eliciting_threshold(VarInt::from_u32(threshold));
            transport.ack_frequency_config(Some(acks));
        }
        Ok(Arc::new(transport))
    }

    fn check(&self) -> Result<(), ConfigError> {
        let windows = u128::from(self.receive_window_bytes);
        let checks: [(&'static str, u128, bool, &'static str); 9] = [
            (
                "idle_timeout (ms)",
                self.idle_timeout.as_millis(),
                self.idle_timeout >= Duration::from_secs(1),
                "1 s or more",
            ),
            (
                "handshake_timeout (ms)",
                self.handshake_timeout.as_millis(),
                (Duration::from_millis(100)..=Duration::from_secs(120)).contains(&self.handshake_timeout),
                "100 ms to 120 s",
            ),
            (
                "stream_window_bytes",
                u128::from(self.stream_window_bytes),
                (4 << 10..=FRAME_BYTES_MAX as u32 * 16).contains(&self.stream_window_bytes),
                "4 KiB to 4 MiB",
            ),
            (
                "receive_window_bytes",
                windows,
                windows > u128::from(self.stream_window_bytes),
                "more than stream_window_bytes, so that a bulk stream cannot stop the control stream",
            ),
            (
                "send_window_bytes",
                u128::from(self.send_window_bytes),
                self.send_window_bytes >= 4 << 10,
                "4 KiB or more",
            ),
            ("queue_messages_max", self.queue_messages_max as u128, self.queue_messages_max >= 16, "16 or more"),
            (
                "queue_bytes_max",
                self.queue_bytes_max as u128,
                self.queue_bytes_max >= FRAME_BYTES_MAX,
                "a whole frame (256 KiB) or more",
            ),
            (
                "bulk_queue_bytes_max",
                self.bulk_queue_bytes_max as u128,
                self.bulk_queue_bytes_max >= BODY_BYTES_MAX,
                "a largest body (16 MiB) or more",
            ),
            (
                "handshakes_max",
                self.handshakes_max as u128,
                (2..=1 << 20).contains(&self.handshakes_max),
                "2 to 1,048,576",
            ),
        ];
        match checks.into_iter().find(|(_, _, fine, _)| !fine) {
            Some((setting, found, _, expected)) => Err(ConfigError { setting, found, expected }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_each_bound_is_named() {
        assert!(LinkConfig::default().transport(1).is_ok());
        let wrong = LinkConfig { receive_window_bytes: 1 << 10, ..LinkConfig::default() };
        assert!(wrong.transport(1).is_err_and(|error| error.setting == "receive_window_bytes"));
        let wrong = LinkConfig { bulk_queue_bytes_max: 1, ..LinkConfig::default() };
        assert!(wrong.transport(1).is_err_and(|error| error.to_string().contains("bulk_queue_bytes_max is 1")));
    }
}
