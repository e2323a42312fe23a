//! Results of a batch and contents of a file: the upstream's bytes as they come. Results are read along for what they cost.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use sallyport_protocol::errors::ErrorCode;
use sallyport_protocol::messages::batch::{self, BatchUsage};

use time::{Date, OffsetDateTime};

use super::passage::StoredPassage;
use super::{MOST_MODELS, StoredAnswer, StoredKind};
use crate::config::PriceList;
use crate::db::stored::StoredObject;
use crate::pipeline::events::{Events, Slot};
use crate::pipeline::exchange::describe;
use crate::pipeline::many::ModelCost;
use crate::pipeline::row::CallEnding;
use crate::pipeline::{Refusal, Reply, ReplyBody};
use crate::upstream::AnswerBody;

/// Longest line of results that is read.
pub(super) const LONGEST_LINE: usize = 8 * 1024 * 1024;

/// What an upstream answers to who wants a content.
enum Opened {
    /// An error, all of it.
    Whole(StoredAnswer),
    /// What was asked for, as it comes.
    Stream(Box<OpenContent>),
}

/// A content whose head has come.
struct OpenContent {
    stored: StoredObject,
    status: u16,
    headers: HeaderMap,
    body: AnswerBody,
}

/// Reads results along, line by line.
pub(super) struct ResultsReader {
    /// A line whose end has not come yet.
    line: Vec<u8>,
    /// It is longer than what is read.
    overlong: bool,
    /// Not all that was used is known.
    partial: bool,
    requests: u64,
    by_model: BTreeMap<String, ModelCost>,
    /// The day on which the batch was made, whose prices count.
    made: Date,
}

/// Where the cost of a batch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priced {
    /// On the row of this call.
    Here,
    /// On an earlier row.
    Earlier,
    /// On none yet.
    Nowhere,
}

// === impl StoredPassage ===

impl StoredPassage {
    /// Passes a content on.
    pub(super) async fn content(mut self, kind: StoredKind, id: &str) -> Result<Reply, Refusal> {
        match self.opened(kind, id).await {
            Err(refusal) => Err(self.fail(refusal).await),
            Ok(Opened::Whole(answer)) => self.end(answer).await,
            Ok(Opened::Stream(content)) => {
                let OpenContent { stored, status, headers, body } = *content;
                let slot = Arc::new(Slot::default());
                let left = Arc::clone(&slot);
                let empty = self.reply(status, headers, ReplyBody::Whole(Bytes::new()));
                let pump = async move { self.pump(&stored, kind, body, status, &left).await };
                Ok(Reply { body: ReplyBody::Stream(Events::plain(slot, pump)), ..empty })
            }
        }
    }

    async fn opened(&mut self, kind: StoredKind, id: &str) -> Result<Opened, Refusal> {
        let stored = self.own(kind, id).await?;
        let part = match kind {
            StoredKind::Batch => "/results",
            StoredKind::File => "/content",
        };
        let answer = self.ask_about(&stored, "GET", part).await?;
        if !answer.status.is_success() {
            return Ok(Opened::Whole(self.whole(answer).await?));
        }
        let mut headers = crate::upstream::passed_on(&answer.headers);
        if headers.contains_key(header::CONTENT_ENCODING) {
            let what = "it is encoded, though no encoding was asked for".to_owned();
            return Err(Refusal::BadAnswer { what });
        }
        // Whatever it is, no browser is to run it under the gateway's address.
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
        let content = OpenContent { stored, status: answer.status.as_u16(), headers, body: answer.body };
        Ok(Opened::Stream(Box::new(content)))
    }

    /// The last piece goes out once the row is closed. What breaks off is cut, so that nobody takes it for all of it.
    async fn pump(
        mut self,
        stored: &StoredObject,
        kind: StoredKind,
        mut body: AnswerBody,
        status: u16,
        slot: &Slot,
    ) {
        let mut reader = (kind == StoredKind::Batch).then(|| ResultsReader::of(stored));
        let mut last: Option<Bytes> = None;
        let mut bytes = 0_usize;
        let broken = loop {
            match body.chunk().await {
                Ok(Some(piece)) => {
                    bytes = bytes.saturating_add(piece.len());
                    if let Some(reader) = &mut reader {
                        reader.read(&piece, &stored.provider, &self.config.prices);
                    }
                    if let Some(before) = last.replace(piece) {
                        slot.send(before).await;
                    }
                }
                Ok(None) => break None,
                Err(error) => break Some(describe(&error.fault())),
            }
        };
        if let Some(record) = self.record() {
            record.note("content_bytes", bytes);
        }
        let mut priced = Priced::Nowhere;
        let ending = match broken {
            None => {
                if let Some(reader) = reader {
                    priced = self.price(stored, reader).await;
                }
                CallEnding::served(status)
            }
            Some(what) => {
                let failed = CallEnding::failed(ErrorCode::UpstreamAnswer, what);
                CallEnding { status: Some(status), ..failed }
            }
        };
        match (self.close(&ending).await, broken) {
            (Ok(()), None) => {
                if let Some(last) = last {
                    slot.leave(last);
                }
            }
            (closed, _) => {
                if closed.is_err() {
                    self.take_back(stored, priced).await;
                }
                slot.cut();
            }
        }
    }

    /// Has nobody take the cost of a batch for written whose row the trail did not take.
    pub(super) async fn take_back(&mut self, stored: &StoredObject, priced: Priced) {
        if priced != Priced::Here {
            return;
        }
        if let Err(error) = self.db().unprice_stored(&stored.tenant_id, &stored.id, self.now_ms()).await {
            tracing::error!(batch = stored.id, "the cost of a batch is on no row: {error:?}");
        }
    }

    /// Has the row say what the batch cost, unless an earlier one does.
    pub(super) async fn price(&mut self, stored: &StoredObject, reader: ResultsReader) -> Priced {
        let ResultsReader { partial, requests, by_model, .. } =
            reader.ended(&stored.provider, &self.config.prices);
        let first = self.db().price_stored(&stored.tenant_id, &stored.id, self.now_ms()).await;
        let list = self.config.prices.version.clone();
        let Some(record) = self.record() else { return Priced::Nowhere };
        record.note("requests", requests);
        if partial {
            record.note("usage", "partial");
        }
        match first {
            Ok(true) => {
                record.note("price_list", list);
                record.costs(by_model.into_values().collect());
                Priced::Here
            }
            Ok(false) => {
                record.note("cost", "on an earlier row");
                Priced::Earlier
            }
            Err(error) => {
                tracing::error!(batch = stored.id, "the cost of a batch is not on its row: {error:?}");
                record.note("cost", "unknown");
                Priced::Nowhere
            }
        }
    }
}

// === impl ResultsReader ===

impl ResultsReader {
    pub(super) fn of(stored: &StoredObject) -> Self {
        let made = OffsetDateTime::from_unix_timestamp(stored.made_ms / 1_000);
        Self::made_on(made.unwrap_or(OffsetDateTime::UNIX_EPOCH).date())
    }

    fn made_on(made: Date) -> Self {
        Self {
            made,
            line: Vec::new(),
            overlong: false,
            partial: false,
            requests: 0,
            by_model: BTreeMap::new(),
        }
    }

    pub(super) fn read(&mut self, piece: &[u8], provider: &str, prices: &PriceList) {
        let mut lines = piece.split(|byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default();
        self.extend(first);
        for line in lines {
            self.end_line(provider, prices);
            self.extend(line);
        }
    }

    fn extend(&mut self, part: &[u8]) {
        if self.line.len() + part.len() > LONGEST_LINE {
            self.overlong = true;
            self.line = Vec::new();
        }
        if !self.overlong {
            self.line.extend_from_slice(part);
        }
    }

    fn end_line(&mut self, provider: &str, prices: &PriceList) {
        let line = std::mem::take(&mut self.line);
        let overlong = std::mem::take(&mut self.overlong);
        if line.trim_ascii().is_empty() && !overlong {
            return;
        }
        self.requests += 1;
        if overlong {
            self.partial = true;
            return;
        }
        if let Some(BatchUsage { model, usage }) = batch::usage_of(&line) {
            if !self.by_model.contains_key(&model) && self.by_model.len() == MOST_MODELS {
                self.partial = true;
                return;
            }
            let cost = prices.on(self.made).entry(provider, &model).and_then(|price| price.in_batch(&usage));
            let new = || ModelCost::new(model.clone());
            self.by_model.entry(model.clone()).or_insert_with(new).add(usage, cost);
        }
    }

    /// What came, to its end.
    fn ended(mut self, provider: &str, prices: &PriceList) -> Self {
        self.end_line(provider, prices);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::date;

    const LINES: &str = concat!(
        r#"{"custom_id":"a","result":{"type":"succeeded","message":{"model":"claude-opus-5-5","usage":{"input_tokens":1234,"output_tokens":567}}}}"#,
        "\n",
        r#"{"custom_id":"b","result":{"type":"errored","error":{}}}"#,
        "\r\n\n",
        r#"{"custom_id":"c","result":{"type":"succeeded","message":{"model":"claude-opus-5-5","usage":{"input_tokens":1,"output_tokens":1}}}}"#,
    );

    fn read(pieces: &[&[u8]]) -> ResultsReader {
        let prices = PriceList::shipped().unwrap();
        let mut reader = ResultsReader::made_on(date!(2026 - 11 - 28));
        for piece in pieces {
            reader.read(piece, "anthropic", &prices);
        }
        reader.ended("anthropic", &prices)
    }

    #[test]
    fn results_cost_the_same_wherever_their_bytes_are_cut() {
        // Half of 1,234 x 4 + 567 x 20 = 16,276, and half of 24.
        for at in 0..=LINES.len() {
            let (one, other) = LINES.as_bytes().split_at(at);
            let ResultsReader { partial, requests, by_model, .. } = read(&[one, other]);
            let cost = by_model.get("claude-opus-5-5").unwrap();
            assert_eq!((cost.requests, cost.cost_micro), (2, Some(8_138 + 12)), "{at}");
            assert_eq!((partial, requests, cost.usage.input), (false, 3, Some(1_235)), "{at}");
        }
    }

    #[test]
    fn a_batch_costs_what_holds_on_the_day_on_which_it_was_made() {
        let entry = |from: &str, rate: u32| {
            format!(
                r#"{{"provider":"*","model":"*",{from}"input":{rate},"output":0,"cache_read":0,"cache_write":0,"batch_percent":50}}"#
            )
        };
        let list = [entry(r#""from":"2026-12-01","#, 4_000_000), entry("", 2_000_000)].join(",");
        let prices = PriceList::parse(&format!(r#"{{"version":"v","models":[{list}]}}"#)).unwrap();
        // Half of (1,234 + 1) x 2, and of (1,234 + 1) x 4, each request rounded up.
        for (made, cost) in [(date!(2026 - 11 - 30), 1_235), (date!(2026 - 12 - 01), 2_470)] {
            let mut reader = ResultsReader::made_on(made);
            reader.read(LINES.as_bytes(), "anthropic", &prices);
            let reader = reader.ended("anthropic", &prices);
            assert_eq!(reader.by_model.get("claude-opus-5-5").unwrap().cost_micro, Some(cost), "{made}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_not_held_and_the_row_says_that_something_is_missing() {
        let long = vec![b'x'; LONGEST_LINE];
        let reader = read(&[&long, &long, b"\n", LINES.as_bytes()]);
        assert!(reader.partial && reader.by_model.len() == 1 && reader.requests == 4);
    }

    #[test]
    fn models_that_an_upstream_makes_up_take_no_more_than_their_room() {
        let line = |number: usize| {
            format!(
                r#"{{"custom_id":"a","result":{{"message":{{"model":"m{number}","usage":{{"input_tokens":1}}}}}}}}"#
            )
        };
        let lines: Vec<_> = (0..100).map(line).collect();
        let reader = read(&[lines.join("\n").as_bytes()]);
        assert!(reader.partial && reader.by_model.len() == MOST_MODELS);
        assert!(reader.by_model.values().all(|cost| cost.cost_micro.is_none()), "none of them has a price");
    }
}
