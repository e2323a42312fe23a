//! Threads that serve connections: one for each processor, each with a runtime of its own. A connection stays on its thread from its
//! first byte to its last, and with it what its calls ask of upstreams: a call does not move from one thread to another. What all calls
//! share (the drain of the trail, the catalog, administration's tasks) runs beside them, on the runtime of the process.

use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// All of them. They end when this is dropped.
pub(crate) struct ServingThreads {
    first: ServingThread,
    others: Vec<ServingThread>,
}

struct ServingThread {
    runtime: Handle,
    /// Connections that it serves.
    connections: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A thread that has to serve one connection more, for as long as this lives.
pub(super) struct Assigned(Arc<AtomicUsize>);

/// Spawns on the runtime of the process: the requests of one connection of HTTP/2 are for all processors.
#[derive(Debug, Clone)]
pub(super) struct SharedExecutor(Handle);

// === impl ServingThreads ===

impl ServingThreads {
    /// Starts one for each processor.
    pub(crate) fn start() -> io::Result<Self> {
        Self::start_some(thread::available_parallelism().map_or(1, NonZero::get))
    }

    fn start_some(count: usize) -> io::Result<Self> {
        let others = (1..count).map(ServingThread::start).collect::<io::Result<_>>()?;
        Ok(Self { first: ServingThread::start(0)?, others })
    }

    /// The runtime of the thread that serves the fewest connections.
    pub(super) fn assign(&self) -> (Handle, Assigned) {
        let fewer =
            |least, it| if ServingThread::count(it) < ServingThread::count(least) { it } else { least };
        let thread = self.others.iter().fold(&self.first, fewer);
        thread.connections.fetch_add(1, Ordering::Relaxed);
        (thread.runtime.clone(), Assigned(Arc::clone(&thread.connections)))
    }
}

// === impl ServingThread ===

impl ServingThread {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name(format!("serving-{number}")).spawn(move || {
            // Ends when the sender is dropped.
            drop(runtime.block_on(stopped));
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, connections: Arc::default(), stop: Some(stop), thread: Some(thread) })
    }

    fn count(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for ServingThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a thread that serves connections panicked");
        }
    }
}

// === impl Assigned ===

impl Drop for Assigned {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl SharedExecutor ===

impl SharedExecutor {
    /// Of the runtime that this is called on.
    pub(super) fn current() -> Self {
        Self(Handle::current())
    }
}

impl<F> hyper::rt::Executor<F> for SharedExecutor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        drop(self.0.spawn(future));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_goes_to_the_thread_that_serves_the_fewest() {
        let threads = ServingThreads::start_some(3).unwrap();
        let mut held: Vec<_> = (0..6).map(|_| threads.assign()).collect();
        for (runtime, _) in &held {
            let on_it = held.iter().filter(|(other, _)| other.id() == runtime.id());
            assert_eq!(on_it.count(), 2);
        }
        let (freed, ended) = held.remove(4);
        drop(ended);
        assert_eq!(threads.assign().0.id(), freed.id());
    }
}
