//! Events of the broker: what it sends without being asked for. Each type has a bounded queue of its own; anyone who is slower than
//! the events of a type is told how many of them it missed. Mail is no event: it goes through the inbox, and nothing of it is lost.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use claudemesh_protocol::call::ServerBody;
use claudemesh_protocol::message::ServerMessage;
use tokio::sync::{broadcast, mpsc};

/// Events of one type that a listener may be behind by.
pub(super) const EVENT_QUEUE: usize = 256;

/// What a listener hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard<E> {
    /// An event.
    Event(E),
    /// At least so many events of this type came faster than they were taken, and are lost.
    Lagged(u64),
    /// The connection was lost and is back. No one tells what happened in between.
    Away,
}

type Item = Heard<Arc<ServerMessage>>;

/// The events of one type, of a connection. Heard from the moment it was made.
pub struct Events<E> {
    tagged: Tagged,
    of: PhantomData<fn() -> E>,
}

impl<E: ServerBody> Events<E> {
    pub(super) fn new(tagged: Tagged) -> Self {
        const { assert!(E::EVENT, "answers belong to the asker") };
        Self { tagged, of: PhantomData }
    }

    /// The next one; `None` when no more can come: the connection is closed, or the session's server does not know the type.
    /// Safe to drop.
    pub async fn next(&mut self) -> Option<Heard<E>> {
        loop {
            match self.tagged.next().await? {
                Heard::Event(message) => {
                    if let Ok(event) = E::from_message(Arc::unwrap_or_clone(message)) {
                        return Some(Heard::Event(event));
                    }
                }
                Heard::Lagged(count) => return Some(Heard::Lagged(count)),
                Heard::Away => return Some(Heard::Away),
            }
        }
    }
}

/// The events of one type, for the part that passes them on.
pub(crate) struct Tagged(broadcast::Receiver<Item>);

impl Tagged {
    /// As [`Events::next`].
    pub(crate) async fn next(&mut self) -> Option<Heard<Arc<ServerMessage>>> {
        match self.0.recv().await {
            Ok(item) => Some(item),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(Heard::Lagged(count)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Hands events out. Types that no one listens to cost nothing.
pub(super) struct Publisher {
    /// By `type`; `None` once no more can come.
    queues: Mutex<Option<HashMap<&'static str, broadcast::Sender<Item>>>>,
    /// Told when a type is listened to for the first time.
    wanted: Option<mpsc::UnboundedSender<&'static str>>,
}

impl Publisher {
    pub(super) fn new(wanted: Option<mpsc::UnboundedSender<&'static str>>) -> Self {
        Self { queues: Mutex::new(Some(HashMap::new())), wanted }
    }

    fn queues(&self) -> MutexGuard<'_, Option<HashMap<&'static str, broadcast::Sender<Item>>>> {
        // Each critical section is one operation on the map, so a poisoned map is still whole.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of the events of a type from now on.
    pub(super) fn listen(&self, tag: &'static str) -> Tagged {
        let mut queues = self.queues();
        let Some(queues) = queues.as_mut() else { return Tagged(broadcast::channel(1).1) };
        let mut first = false;
        let queue = queues.entry(tag).or_insert_with(|| {
            first = true;
            broadcast::channel(EVENT_QUEUE).0
        });
        let heard = queue.subscribe();
        if let Some(wanted) = self.wanted.as_ref().filter(|_| first) {
            // No one there any more: the queues are closed in a moment.
            let _ = wanted.send(tag);
        }
        Tagged(heard)
    }

    /// Tells an event.
    pub(super) fn publish(&self, event: ServerMessage) {
        if let Some(queue) = self.queues().as_ref().and_then(|queues| queues.get(event.tag())) {
            let _ = queue.send(Heard::Event(Arc::new(event)));
        }
    }

    /// Tells that events of a type were lost on their way to here.
    pub(super) fn lagged(&self, tag: &str, count: u64) {
        self.tell(tag, Heard::Lagged(count));
    }

    /// Tells those who listen to a type that the connection was lost and is back.
    pub(super) fn away(&self, tag: &str) {
        self.tell(tag, Heard::Away);
    }

    /// The same for all types.
    pub(super) fn all_away(&self) {
        for queue in self.queues().iter().flat_map(HashMap::values) {
            let _ = queue.send(Heard::Away);
        }
    }

    fn tell(&self, tag: &str, item: Item) {
        if let Some(queue) = self.queues().as_ref().and_then(|queues| queues.get(tag)) {
            let _ = queue.send(item);
        }
    }

    /// No more events of this type will come. Anyone who listens anew asks anew.
    pub(super) fn end(&self, tag: &str) {
        if let Some(queues) = self.queues().as_mut() {
            queues.remove(tag);
        }
    }

    /// No more events will come.
    pub(super) fn close(&self) {
        self.queues().take();
    }
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::features::messaging::Push;

    use super::*;

    fn push(event: &str) -> Push {
        Push { event: Some(event.into()), ..Push::default() }
    }

    #[tokio::test]
    async fn a_slow_listener_is_told_how_many_it_missed() {
        let publisher = Publisher::new(None);
        publisher.publish(push("before").into());
        let mut events = Events::<Push>::new(publisher.listen(Push::TAG));
        for number in 0..EVENT_QUEUE + 3 {
            publisher.publish(push(&number.to_string()).into());
        }
        publisher.all_away();
        publisher.lagged(Push::TAG, 7);
        publisher.close();
        assert_eq!(events.next().await, Some(Heard::Lagged(5)));
        for number in 5..EVENT_QUEUE + 3 {
            assert_eq!(events.next().await, Some(Heard::Event(push(&number.to_string()))));
        }
        assert_eq!(events.next().await, Some(Heard::Away));
        assert_eq!(events.next().await, Some(Heard::Lagged(7)));
        assert_eq!(events.next().await, None);
        assert_eq!(Events::<Push>::new(publisher.listen(Push::TAG)).next().await, None, "closed is closed");
    }

    #[tokio::test]
    async fn a_type_is_asked_for_once_and_again_after_its_end() {
        let (wanted, mut asked) = mpsc::unbounded_channel();
        let publisher = Publisher::new(Some(wanted));
        let (mut first, _second) = (publisher.listen(Push::TAG), publisher.listen(Push::TAG));
        assert_eq!((asked.try_recv().ok(), asked.try_recv().ok()), (Some(Push::TAG), None));
        publisher.end(Push::TAG);
        assert!(first.next().await.is_none());
        let _third = publisher.listen(Push::TAG);
        assert_eq!(asked.try_recv().ok(), Some(Push::TAG));
    }
}
