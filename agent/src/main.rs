//! `fleetwire-agent`: runs on a device and does what a scheduler assigns to it.

use anyhow::Context;
use clap::Parser;
use fleetwire_agent::{Options, executor, run};
use std::{io::IsTerminal, process::ExitCode};

fn main() -> ExitCode {
    // First of all: this executable is also the spawner that it starts.
    if let Some(code) = executor::spawner_if_asked() {
        return code;
    }
    let options = Options::parse();
    let terminal = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_max_level(options.log).with_ansi(terminal).with_target(false);
    log.with_writer(std::io::stderr).init();
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleetwire-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One thread for everything but the journal's syncs.
fn serve(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let stop = stop_signal().context("watching for signals")?;
        reap_orphans().context("watching for processes that end")?;
        run(options.into_config()?, stop).await?;
        anyhow::Ok(())
    })
}

/// As process 1 of a container the agent is given whatever loses its parent, and nobody else would reap it. Its own
/// children are watched in another way.
fn reap_orphans() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    if std::process::id() != 1 {
        return Ok(());
    }
    let mut ended = signal(SignalKind::child())?;
    tokio::spawn(async move {
        while ended.recv().await.is_some() {
            while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
        }
    });
    Ok(())
}

/// Done at SIGTERM or SIGINT.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
    })
}
