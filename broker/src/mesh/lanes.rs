//! Lanes: slow work of one lane runs one after the other, lanes run beside each other.

use std::collections::{HashMap, VecDeque};

use claudemesh_protocol::id::MemberId;

use super::outcome::{Lane, Work};

/// Jobs that may run at the same time in one mesh; the rest waits in its lane.
pub const MAX_RUNNING: usize = 64;
/// Jobs that may wait in one mesh before new requests are refused with `busy`.
pub const MAX_WAITING: usize = 4_096;
/// Jobs that may run and wait for one member, whatever number of connections it has: some of them alone must not make the requests of
/// all others fail, those of who could ban it among them.
pub const MAX_RUNNING_OF_ONE: usize = MAX_RUNNING / 4;
/// As [`MAX_RUNNING_OF_ONE`].
pub const MAX_WAITING_OF_ONE: usize = MAX_WAITING / 4;

/// What one member has in the lanes.
#[derive(Clone, Copy, Default)]
struct Share {
    running: usize,
    waiting: usize,
}

/// A job, and whose request it is for; `None`: the mesh's own.
struct Job {
    work: Work,
    of: Option<MemberId>,
}

/// Waiting and running work of one mesh.
#[derive(Default)]
pub struct Lanes {
    /// A lane has an entry while it waits or runs.
    lanes: HashMap<Lane, VecDeque<Job>>,
    ready: VecDeque<Lane>,
    /// Members with something in the lanes.
    shares: HashMap<MemberId, Share>,
    running: usize,
    waiting: usize,
}

impl Lanes {
    /// Admits work for a request of a member; gives it back when too much waits already, in all or of this member.
    ///
    /// The mesh's own work is never refused: no one would ask for it again. Anyone who admits it bounds it, mostly to one per peer.
    pub fn admit(&mut self, work: Work, of: Option<MemberId>) -> Result<(), Box<Work>> {
        let own = of.as_ref().and_then(|member| self.shares.get(member)).copied().unwrap_or_default();
        let full = self.waiting >= MAX_WAITING || own.waiting >= MAX_WAITING_OF_ONE;
        if full && work.reply_to.is_some() {
            return Err(Box::new(work));
        }
        let lane = work.lane.clone();
        self.waiting += 1;
        if let Some(member) = &of {
            self.shares.entry(member.clone()).or_default().waiting += 1;
        }
        let job = Job { work, of };
        match self.lanes.get_mut(&lane) {
            Some(queue) => queue.push_back(job),
            None => {
                self.lanes.insert(lane.clone(), VecDeque::from([job]));
                self.ready.push_back(lane);
            }
        }
        Ok(())
    }

    /// The next job to start, if a place is free: the first of a member that has not enough of them running. It goes back to
    /// [`Self::finished`] with its member.
    pub fn start(&mut self) -> Option<(Work, Option<MemberId>)> {
        if self.running >= MAX_RUNNING {
            return None;
        }
        let may = |lane: &Lane| {
            let first = self.lanes.get(lane).and_then(VecDeque::front);
            let share = first.and_then(|job| job.of.as_ref()).and_then(|member| self.shares.get(member));
            share.is_none_or(|share| share.running < MAX_RUNNING_OF_ONE)
        };
        let at = self.ready.iter().position(may)?;
        let lane = self.ready.remove(at)?;
        let Job { work, of } = self.lanes.get_mut(&lane)?.pop_front()?;
        self.running += 1;
        self.waiting -= 1;
        if let Some(share) = of.as_ref().and_then(|member| self.shares.get_mut(member)) {
            share.running += 1;
            share.waiting -= 1;
        }
        Some((work, of))
    }

    /// A job is back; its lane may go on.
    pub fn finished(&mut self, lane: &Lane, of: Option<&MemberId>) {
        self.running -= 1;
        if let Some(member) = of
            && let Some(share) = self.shares.get_mut(member)
        {
            share.running -= 1;
            if share.running + share.waiting == 0 {
                self.shares.remove(member);
            }
        }
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

    fn started(lanes: &mut Lanes) -> Option<(String, Option<MemberId>)> {
        lanes.start().map(|(work, of)| (work.lane.key, of))
    }

    #[test]
    fn one_lane_runs_one_job_at_a_time() {
        let mut lanes = Lanes::default();
        for key in ["a", "a", "b"] {
            assert!(lanes.admit(work(key), None).is_ok());
        }
        let (first, _) = lanes.start().unwrap();
        let (second, _) = lanes.start().unwrap();
        assert_eq!((first.lane.key.as_str(), second.lane.key.as_str()), ("a", "b"));
        assert!(lanes.start().is_none(), "the second `a` waits for the first");
        lanes.finished(&first.lane, None);
        assert_eq!(started(&mut lanes).unwrap().0, "a");
        lanes.finished(&second.lane, None);
        lanes.finished(&first.lane, None);
        assert!(lanes.is_empty());
    }

    #[test]
    fn a_request_too_many_is_given_back_and_the_meshs_own_work_never_is() {
        let mut lanes = Lanes::default();
        for number in 0..MAX_WAITING {
            assert!(lanes.admit(request("a"), Some(format!("m{}", number % 9).into())).is_ok());
        }
        assert!(lanes.admit(request("b"), Some("new".into())).is_err());
        assert!(lanes.admit(work("c"), None).is_ok());
    }

    #[test]
    fn one_member_with_many_lanes_takes_only_its_share() {
        let mut lanes = Lanes::default();
        let (eve, ann) = (Some(MemberId::from("eve")), Some(MemberId::from("ann")));
        for number in 0..MAX_WAITING_OF_ONE {
            assert!(lanes.admit(request(&format!("eve {}", number % 100)), eve.clone()).is_ok());
        }
        assert!(lanes.admit(request("eve more"), eve.clone()).is_err());
        for _ in 0..MAX_RUNNING_OF_ONE {
            assert_eq!(started(&mut lanes).unwrap().1, eve);
        }
        assert!(lanes.start().is_none(), "the other places are for others");
        assert!(lanes.admit(request("ann"), ann.clone()).is_ok());
        assert_eq!(started(&mut lanes).unwrap(), ("ann".into(), ann.clone()));
        // What ended makes room for its own member, and nothing of it is kept.
        lanes.finished(&request("eve 0").lane, eve.as_ref());
        assert_eq!(started(&mut lanes).unwrap().1, eve);
        lanes.finished(&request("ann").lane, ann.as_ref());
        assert_eq!(lanes.shares.len(), 1);
    }
}
