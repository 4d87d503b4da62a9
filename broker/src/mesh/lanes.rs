//! Lanes: slow work of one lane runs one after the other, lanes run beside each other.

use std::collections::{HashMap, VecDeque};

use super::outcome::{Lane, Work};

/// Jobs that may run at the same time in one mesh; the rest waits in its lane.
pub const MAX_RUNNING: usize = 64;
/// Jobs that may wait in one mesh before new requests are refused with `busy`.
pub const MAX_WAITING: usize = 4_096;

/// Waiting and running work of one mesh.
#[derive(Default)]
pub struct Lanes {
    /// A lane has an entry while it waits or runs.
    lanes: HashMap<Lane, VecDeque<Work>>,
    ready: VecDeque<Lane>,
    running: usize,
    waiting: usize,
}

impl Lanes {
    /// Admits work; gives a request back when too much waits already.
    ///
    /// The mesh's own work is never refused: no one would ask for it again. Anyone who admits it bounds it, mostly to one per peer.
    pub fn admit(&mut self, work: Work) -> Result<(), Box<Work>> {
        if self.waiting >= MAX_WAITING && work.reply_to.is_some() {
            return Err(Box::new(work));
        }
        let lane = work.lane.clone();
        self.waiting += 1;
        match self.lanes.get_mut(&lane) {
            Some(queue) => queue.push_back(work),
            None => {
                self.lanes.insert(lane.clone(), VecDeque::from([work]));
                self.ready.push_back(lane);
            }
        }
        Ok(())
    }

    /// The next job to start, if a place is free.
    pub fn start(&mut self) -> Option<Work> {
        if self.running >= MAX_RUNNING {
            return None;
        }
        let lane = self.ready.pop_front()?;
        let work = self.lanes.get_mut(&lane)?.pop_front()?;
        self.running += 1;
        self.waiting -= 1;
        Some(work)
    }

    /// A job is back; its lane may go on.
    pub fn finished(&mut self, lane: &Lane) {
        self.running -= 1;
        match self.lanes.get(lane) {
            Some(queue) if !queue.is_empty() => self.ready.push_back(lane.clone()),
            _ => {
                self.lanes.remove(lane);
            }
        }
    }

    /// Nothing waits or runs.
    pub fn is_empty(&self) -> bool {
        self.running == 0 && self.waiting == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::peers::PeerHandle;
    use super::super::principal::{ReplyTo, Way};
    use super::*;

    fn work(key: &str) -> Work {
        let lane = Lane { feature: "test", key: key.into() };
        let apply = || -> super::super::outcome::Apply { Box::new(|_, _| Ok(super::super::outcome::Outcome::Silent)) };
        Work::new(lane, Box::pin(async move { Ok(apply()) }))
    }

    fn request(key: &str) -> Work {
        let to =
            ReplyTo { way: Way::Socket { peer: PeerHandle(1), socket_no: 1 }, req_id: None, id: None, confirm: false };
        Work { reply_to: Some(to), ..work(key) }
    }

    #[test]
    fn one_lane_runs_one_job_at_a_time() {
        let mut lanes = Lanes::default();
        for key in ["a", "a", "b"] {
            assert!(lanes.admit(work(key)).is_ok());
        }
        let first = lanes.start().unwrap();
        let second = lanes.start().unwrap();
        assert_eq!((first.lane.key.as_str(), second.lane.key.as_str()), ("a", "b"));
        assert!(lanes.start().is_none(), "the second `a` waits for the first");
        lanes.finished(&first.lane);
        assert_eq!(lanes.start().unwrap().lane.key, "a");
        lanes.finished(&second.lane);
        lanes.finished(&first.lane);
        assert!(lanes.is_empty());
    }

    #[test]
    fn a_request_too_many_is_given_back_and_the_meshs_own_work_never_is() {
        let mut lanes = Lanes::default();
        for _ in 0..MAX_WAITING {
            assert!(lanes.admit(request("a")).is_ok());
        }
        assert!(lanes.admit(request("b")).is_err());
        assert!(lanes.admit(work("c")).is_ok());
    }
}
