//! Readers of the streams: each knows where it is, and what it may be told next.

use std::cell::RefCell;
use std::rc::Rc;

use claudemesh_protocol::features::streams::{StreamData, StreamGap, Subscribed};
use serde_json::{Value, json};

use super::super::cast::Board;
use super::log::Log;
use super::{STREAMS, create};
use crate::wire::{Out, Peer, is};

/// The consumer of [`Habit::Acknowledges`] and of [`Habit::Follows`].
const CONSUMER: &str = "torture";
/// Every so many entries are acknowledged together.
const ACKNOWLEDGED: u64 = 3;

/// How a reader behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// A consumer that acknowledges: its place is what was acknowledged.
    Acknowledges,
    /// A consumer whose place moves with what is pushed.
    Follows,
    /// Knows its place itself, and is away while the broker is under load.
    Late,
}

/// Where a reader is in one stream.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Offset of the entry that comes next; `None`: not subscribed in this connection.
    next: Option<u64>,
    /// What it has read before this connection.
    known: u64,
    /// Behind what was acknowledged, and that was confirmed.
    confirmed: u64,
    /// Behind what was acknowledged last.
    acknowledged: u64,
}

/// Where a reader is, over all its connections.
#[derive(Debug, Default)]
pub(super) struct Places([Place; STREAMS.len()]);

impl Places {
    /// Everything before this was read in this connection, or before it.
    pub(super) fn has_read(&self, stream: usize, end: u64) -> bool {
        let place = &self.0[stream];
        place.next.is_some_and(|next| next >= end) && place.confirmed == place.acknowledged
    }

    /// Behind the last entry that was acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.0.iter().map(|place| place.confirmed).max().unwrap_or_default()
    }
}

/// One connection of a reader.
pub(super) struct Reader {
    habit: Habit,
    places: Rc<RefCell<Places>>,
    log: Rc<RefCell<Log>>,
    board: Rc<Board>,
}

fn stream_of(name: &str) -> Result<usize, String> {
    STREAMS.iter().position(|(known, _)| *known == name).ok_or_else(|| format!("it was told of the stream {name}"))
}

fn read<T: serde::de::DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| format!("{error}: {}", String::from_utf8_lossy(text)))
}

impl Reader {
    pub(super) fn new(habit: Habit, places: &Rc<RefCell<Places>>, log: &Rc<RefCell<Log>>, board: &Rc<Board>) -> Self {
        for place in &mut places.borrow_mut().0 {
            place.known = place.known.max(place.next.take().unwrap_or_default());
        }
        Self { habit, places: places.clone(), log: log.clone(), board: board.clone() }
    }

    /// A stream has to be there before it has consumers.
    pub(super) fn begin(&self, stream: usize, out: &mut Out) {
        let mut frame = create(stream);
        frame["_reqId"] = json!(format!("create{stream}"));
        out.text(&[frame.to_string().as_bytes()]);
    }

    fn subscribe(&self, stream: usize, out: &mut Out) {
        let known = self.places.borrow().0[stream].known;
        let mut frame =
            json!({"type": "subscribe", "stream": STREAMS[stream].0, "_reqId": format!("subscribe{stream}")});
        match self.habit {
            Habit::Late => frame["from"] = json!(known),
            Habit::Follows | Habit::Acknowledges => {
                (frame["from"], frame["consumer"]) = (json!("start"), json!(format!("{CONSUMER}-{:?}", self.habit)));
                frame["ack"] = json!(self.habit == Habit::Acknowledges);
            }
        }
        out.text(&[frame.to_string().as_bytes()]);
    }

    /// The broker says where it goes on.
    fn subscribed(&self, stream: usize, next: u64) -> Result<(), String> {
        let place = &mut self.places.borrow_mut().0[stream];
        let (name, Place { known, confirmed, acknowledged, .. }) = (STREAMS[stream].0, *place);
        let fine = match self.habit {
            Habit::Late => next == known,
            // What was acknowledged without an answer may count or not.
            Habit::Acknowledges => (confirmed..=acknowledged).contains(&next),
            // Never back; what was pushed and not read is its own.
            Habit::Follows => next >= confirmed,
        };
        if !fine {
            return Err(format!("in {name} it goes on at {next}, and it was at {place:?}"));
        }
        place.next = Some(next);
        if self.habit != Habit::Late {
            (place.confirmed, place.acknowledged) = (next, next);
        }
        Ok(())
    }

    fn told(&self, stream: usize, offset: u64, data: &Value, out: &mut Out) -> Result<(), String> {
        self.log.borrow_mut().see(stream, offset, data)?;
        self.moved(stream, offset, offset + 1)?;
        if self.habit == Habit::Acknowledges && offset.is_multiple_of(ACKNOWLEDGED) {
            self.acknowledge(stream, offset, out);
        }
        Ok(())
    }

    fn moved(&self, stream: usize, at: u64, to: u64) -> Result<(), String> {
        let place = &mut self.places.borrow_mut().0[stream];
        if place.next != Some(at) {
            return Err(format!("in {} it was told of {at}, and is at {place:?}", STREAMS[stream].0));
        }
        place.next = Some(to);
        Ok(())
    }

    fn acknowledge(&self, stream: usize, offset: u64, out: &mut Out) {
        let frame = json!({
            "type": "ack_stream", "stream": STREAMS[stream].0, "consumer": format!("{CONSUMER}-{:?}", self.habit),
            "offset": offset, "confirm": true, "_reqId": format!("acked{stream}.{offset}"),
        });
        self.places.borrow_mut().0[stream].acknowledged = offset + 1;
        out.text(&[frame.to_string().as_bytes()]);
    }

    fn answered(&self, frame: &Value, out: &mut Out) -> Result<(), String> {
        let id = frame["_reqId"].as_str().unwrap_or_default();
        let wrong = || format!("it got {frame}");
        let (what, rest) = id.split_at(id.find(|digit: char| digit.is_ascii_digit()).ok_or_else(wrong)?);
        let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
        match (what, rest.split_once('.')) {
            ("create", None) if frame["type"] == "stream_created" => {
                self.subscribe(usize::try_from(number(rest)?).map_err(|_| wrong())?, out);
                Ok(())
            }
            ("subscribe", None) if frame["type"] == "subscribed" => {
                let told: Subscribed = serde_json::from_value(frame.clone()).map_err(|_| wrong())?;
                self.subscribed(stream_of(&told.stream)?, told.next.ok_or_else(wrong)?)
            }
            ("acked", Some((stream, offset))) if frame["type"] == "done" => {
                let stream = usize::try_from(number(stream)?).map_err(|_| wrong())?;
                let place = &mut self.places.borrow_mut().0[stream];
                place.confirmed = place.confirmed.max(number(offset)? + 1);
                Ok(())
            }
            _ => Err(wrong()),
        }
    }

    fn read(&self, text: &[u8], out: &mut Out) -> Result<(), String> {
        if is(text, "stream_data") {
            let data: StreamData = read(text)?;
            let offset = data.offset.ok_or("an entry without its offset")?;
            self.told(stream_of(&data.stream)?, offset, &data.data, out)
        } else if is(text, "stream_gap") {
            let gap: StreamGap = read(text)?;
            let stream = stream_of(&gap.stream)?;
            self.log.borrow_mut().gap(stream, gap.from, gap.to)?;
            self.moved(stream, gap.from, gap.to + 1)
        } else if memchr::memmem::find(text, b"\"_reqId\":\"").is_some() {
            self.answered(&read(text)?, out)
        } else {
            Ok(())
        }
    }
}

impl Peer for Reader {
    fn frame(&mut self, text: &[u8], out: &mut Out) {
        if let Err(fault) = self.read(text, out) {
            return self.board.fail(format!("streams, reader {:?}: {fault}", self.habit));
        }
        self.board.change();
    }
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::message::ServerMessage;

    use super::super::super::asked::Book;
    use super::super::log::Act;
    use super::*;

    /// A reader of the first stream, and a log with entries at 0 to 8.
    fn reader(habit: Habit) -> Reader {
        let mut log = Log::new(1);
        for offset in 0..9 {
            let number = log.asked.begin(0, Act::Publish(0));
            log.answered(0, number, &json!({"type": "done", "offset": offset})).unwrap();
        }
        Reader::new(habit, &Rc::default(), &Rc::new(RefCell::new(log)), &Rc::default())
    }

    fn again(reader: &Reader) -> Reader {
        Reader::new(reader.habit, &reader.places, &reader.log, &reader.board)
    }

    fn entry(reader: &Reader, offset: u64) -> Result<(), String> {
        let (stream, data) = (STREAMS[0].0.into(), json!(format!("w0n{offset}")));
        let data = StreamData { stream, data, published_by: "w".into(), offset: Some(offset) };
        reader.read(ServerMessage::from(data).write(None).as_bytes(), &mut Out::default())
    }

    fn answer(reader: &Reader, frame: Value) -> Result<(), String> {
        reader.read(frame.to_string().as_bytes(), &mut Out::default())
    }

    fn goes_on(reader: &Reader, next: u64) -> Result<(), String> {
        answer(reader, json!({"type": "subscribed", "stream": STREAMS[0].0, "next": next, "_reqId": "subscribe0"}))
    }

    #[test]
    fn holes_doubles_and_wrong_places_are_found() {
        let late = reader(Habit::Late);
        assert!(entry(&late, 0).is_err(), "before it subscribed");
        goes_on(&late, 0).unwrap();
        entry(&late, 0).unwrap();
        entry(&late, 1).unwrap();
        assert!(entry(&late, 1).is_err(), "twice");
        assert!(entry(&late, 3).is_err(), "a hole that nobody told");
        let gap = ServerMessage::from(StreamGap { stream: STREAMS[0].0.into(), from: 2, to: 4 });
        late.read(gap.write(None).as_bytes(), &mut Out::default()).unwrap();
        entry(&late, 5).unwrap();
        let next = again(&late);
        assert!(goes_on(&next, 5).is_err() && goes_on(&next, 7).is_err(), "not where it was");
        goes_on(&next, 6).unwrap();
    }

    #[test]
    fn a_consumer_that_goes_on_elsewhere_is_found() {
        let consumer = reader(Habit::Acknowledges);
        goes_on(&consumer, 0).unwrap();
        for offset in 0..5 {
            entry(&consumer, offset).unwrap();
        }
        // 0 and 3 were acknowledged, and only the first of it confirmed.
        answer(&consumer, json!({"type": "done", "_reqId": "acked0.0"})).unwrap();
        for (next, fine) in [(0, false), (1, true), (3, true), (4, true), (5, false)] {
            let places = Rc::new(RefCell::new(Places(consumer.places.borrow().0)));
            let next_one = Reader::new(Habit::Acknowledges, &places, &consumer.log, &consumer.board);
            assert_eq!(goes_on(&next_one, next).is_ok(), fine, "{next}");
        }
        let follower = reader(Habit::Follows);
        goes_on(&follower, 4).unwrap();
        assert!(goes_on(&again(&follower), 3).is_err(), "back");
    }

    #[test]
    fn refusals_are_found() {
        let late = reader(Habit::Late);
        assert!(answer(&late, json!({"type": "error", "code": "not_found", "_reqId": "subscribe0"})).is_err());
    }
}
