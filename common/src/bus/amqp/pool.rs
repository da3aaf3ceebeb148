//! Channels of one connection, each lent to one operation at a time.
//!
//! A publish has a channel to itself until its confirm is there, for two reasons. An error closes the channel it
//! happened on, and so hits nobody else. And lapin gives a returned message to whichever confirm of the channel
//! comes next, so with several outstanding nobody could tell whose message had no queue.

use std::sync::{Arc, Mutex, PoisonError};

use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use tokio::sync::Semaphore;

use super::link::Link;
use crate::bus::BusError;

/// Lends channels, opens them when none is idle, and keeps them open afterwards.
pub(super) struct Pool {
    link: Arc<Link>,
    confirms: bool,
    permits: Semaphore,
    idle: Mutex<Vec<Channel>>,
}

impl Pool {
    /// At most `most` channels; with `confirms` in confirm mode.
    pub(super) fn new(link: Arc<Link>, most: usize, confirms: bool) -> Self {
        Self { link, confirms, permits: Semaphore::new(most), idle: Mutex::default() }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Does something on a channel of its own. After an error, or when the work is dropped half-way, the channel is
    /// closed and not used again.
    pub(super) async fn with<T>(
        &self,
        work: impl AsyncFnOnce(&Channel) -> lapin::Result<T>,
    ) -> Result<lapin::Result<T>, BusError> {
        let _permit = self.permits.acquire().await.map_err(|e| BusError::Down(e.to_string()))?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let channel = match idle {
            Some(channel) => channel,
            None => self.open().await?,
        };
        let done = work(&channel).await;
        if done.is_ok() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(channel);
        } else {
            self.link.check();
        }
        Ok(done)
    }

    async fn open(&self) -> Result<Channel, BusError> {
        let channel = self.link.open_channel().await?;
        if self.confirms {
            let selected = channel.confirm_select(ConfirmSelectOptions::default()).await;
            selected.map_err(|e| self.link.fault(&e))?;
        }
        Ok(channel)
    }
}
