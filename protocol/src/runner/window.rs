//! Credit of a stream: each side may send [`WINDOW_BYTES`] of its body, and more when the receiver has taken some.

use super::limits::WINDOW_BYTES;

/// The receiver gives credit back in steps of this size, so that few frames carry it.
const STEP_BYTES: u32 = WINDOW_BYTES / 4;

/// The other side broke the rule; its stream is reset with [`super::FailCode::Protocol`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected no more bytes than there is credit for")]
pub struct Overrun;

/// What may be sent.
#[derive(Debug)]
pub struct Sending {
    credit: u32,
}

impl Default for Sending {
    fn default() -> Self {
        Self { credit: WINDOW_BYTES }
    }
}

impl Sending {
    /// How many bytes may be sent now.
    pub fn available(&self) -> usize {
        self.credit as usize
    }

    /// Takes up to `wanted` bytes of the credit, and says how many.
    pub fn take(&mut self, wanted: usize) -> usize {
        let taken = wanted.min(self.credit as usize);
        self.credit -= taken as u32;
        taken
    }

    /// The receiver has taken `bytes`.
    ///
    /// # Errors
    /// More than was sent.
    pub fn granted(&mut self, bytes: u32) -> Result<(), Overrun> {
        self.credit = self.credit.checked_add(bytes).filter(|credit| *credit <= WINDOW_BYTES).ok_or(Overrun)?;
        Ok(())
    }
}

/// What may come.
#[derive(Debug)]
pub struct Receiving {
    left: u32,
    taken: u32,
}

impl Default for Receiving {
    fn default() -> Self {
        Self { left: WINDOW_BYTES, taken: 0 }
    }
}

impl Receiving {
    /// So many bytes came.
    ///
    /// # Errors
    /// More than was granted.
    pub fn received(&mut self, bytes: usize) -> Result<(), Overrun> {
        self.left = u32::try_from(bytes).ok().and_then(|bytes| self.left.checked_sub(bytes)).ok_or(Overrun)?;
        Ok(())
    }

    /// So many of them were taken: the credit to send, when it is worth a frame.
    pub fn taken(&mut self, bytes: usize) -> Option<u32> {
        self.taken = self.taken.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX)).min(WINDOW_BYTES - self.left);
        (self.taken >= STEP_BYTES).then(|| {
            self.left += self.taken;
            std::mem::take(&mut self.taken)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_any_size_goes_through_and_never_more_than_a_window_is_under_way() {
        let (mut sending, mut receiving) = (Sending::default(), Receiving::default());
        let (mut sent, mut under_way) = (0, 0_usize);
        while sent < 5 * WINDOW_BYTES as usize {
            let bytes = sending.take(65_536);
            sent += bytes;
            under_way += bytes;
            receiving.received(bytes).unwrap();
            assert!(under_way <= WINDOW_BYTES as usize);
            if bytes == 0 {
                let credit = receiving.taken(under_way).expect("a full window is worth a credit");
                under_way = 0;
                sending.granted(credit).unwrap();
            }
        }
    }

    #[test]
    fn who_breaks_the_rule_is_noticed() {
        assert_eq!(Sending::default().granted(1), Err(Overrun));
        let mut receiving = Receiving::default();
        receiving.received(WINDOW_BYTES as usize).unwrap();
        assert_eq!(receiving.received(1), Err(Overrun));
        assert_eq!(Receiving::default().taken(usize::MAX), None, "credit is given for what came only");
    }
}
