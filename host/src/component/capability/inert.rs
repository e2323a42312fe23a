//! WASI 0.2 for guests whose language insists on it, stubbed: no files, no environment, no arguments, a clock that
//! is frozen, randomness that can be replayed, and a standard error that is kept for the log.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime::component::{HasData, Linker};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView as _};
use wasmtime_wasi::clocks::{HostMonotonicClock, HostWallClock};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::{cli, filesystem, random};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{Deterministic, WasiCtx, WasiCtxView, WasiView};

use crate::component::limits::{LOG_BYTES, Limits};
use crate::component::state::State;

/// The system interfaces of one store.
pub(crate) struct Inert {
    context: WasiCtx,
    log: Log,
}

/// Standard error: the first bytes are kept, the rest is swallowed.
#[derive(Clone, Default)]
struct Log {
    kept: Arc<Mutex<Vec<u8>>>,
}

/// A clock that stands.
#[derive(Clone, Copy)]
struct Frozen(Duration);

/// Links the inert interfaces; sockets and HTTP are not among them.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_proxy_interfaces_async(linker)?;
    filesystem::types::add_to_linker::<State, WasiFilesystem>(linker, State::filesystem)?;
    filesystem::preopens::add_to_linker::<State, WasiFilesystem>(linker, State::filesystem)?;
    random::insecure::add_to_linker::<State, WasiRandom>(linker, random_of)?;
    random::insecure_seed::add_to_linker::<State, WasiRandom>(linker, random_of)?;
    cli::exit::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::environment::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    Ok(())
}

fn random_of(state: &mut State) -> <WasiRandom as HasData>::Data<'_> {
    state.ctx().ctx.random()
}

// === impl Inert ===

impl Inert {
    pub(crate) fn new(limits: &Limits, seed: &str, now: Duration) -> Self {
        let log = Log::default();
        let mut bytes = vec![0; usize::try_from(limits.random).unwrap_or(4_096)];
        let mut reader = blake3::Hasher::new_derive_key("sallyport 2026 guest randomness")
            .update(seed.as_bytes())
            .finalize_xof();
        reader.fill(&mut bytes);
        let mut seed = [0; 16];
        reader.fill(&mut seed);
        let clock = Frozen(Duration::from_millis(u64::try_from(now.as_millis()).unwrap_or(0)));
        let context = WasiCtx::builder()
            .stderr(log.clone())
            .allow_tcp(false)
            .allow_udp(false)
            .secure_random(Deterministic::new(bytes.clone()))
            .insecure_random(Deterministic::new(bytes))
            .insecure_random_seed(u128::from_le_bytes(seed))
            .max_random_size(limits.random)
            .wall_clock(clock)
            .monotonic_clock(clock)
            .build();
        Self { context, log }
    }

    /// What the guest wrote to standard error, without control characters.
    pub(crate) fn log(&self) -> Option<String> {
        let kept = self.log.kept.lock().ok()?;
        if kept.is_empty() {
            return None;
        }
        let text = String::from_utf8_lossy(&kept);
        Some(text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { ' ' } else { c }).collect())
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let (inert, table) = self.inert();
        WasiCtxView { ctx: &mut inert.context, table }
    }
}

// === impl Log ===

impl Log {
    fn keep(&self, bytes: &[u8]) {
        if let Ok(mut kept) = self.kept.lock() {
            let room = LOG_BYTES.saturating_sub(kept.len());
            kept.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        }
    }
}

impl IsTerminal for Log {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Log {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for Log {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.keep(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Log {
    async fn ready(&mut self) {}
}

impl OutputStream for Log {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.keep(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(LOG_BYTES)
    }
}

// === impl Frozen ===

impl HostWallClock for Frozen {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        self.0
    }
}

impl HostMonotonicClock for Frozen {
    fn resolution(&self) -> u64 {
        1_000_000
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }
}
