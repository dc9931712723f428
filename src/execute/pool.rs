//! The memory that operators reserve, and who of them gets it.

use std::fmt::{self, Display, Formatter};
use std::sync::{Mutex, MutexGuard, PoisonError};

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, human_readable_size,
};

/// One part of the pool in so many is given out first come, first served.
const FIRST_COME_SHARE: usize = 2;

/// A memory pool in two parts: the first is given out first come, first served, and the second is divided evenly among
/// the operators that can spill.
///
/// DataFusion's [`FairSpillPool`](datafusion::execution::memory_pool::FairSpillPool) divides all of it evenly, so one
/// busy operator of ten spills while nine tenths of the memory are free. In its
/// [`GreedyMemoryPool`](datafusion::execution::memory_pool::GreedyMemoryPool), operators that come later may get
/// nothing. Operators that can't spill take what is free.
#[derive(Debug)]
pub struct SharedPool {
    bytes: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Operators that can spill.
    spilling: usize,
    /// What they have.
    spillable: usize,
    /// What others have.
    unspillable: usize,
}

impl SharedPool {
    /// A pool of so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self { bytes, held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn of(&mut self, consumer: &MemoryConsumer) -> &mut usize {
        if consumer.can_spill() { &mut self.spillable } else { &mut self.unspillable }
    }

    fn total(&self) -> usize {
        self.spillable + self.unspillable
    }
}

impl MemoryPool for SharedPool {
    fn name(&self) -> &str {
        "shared"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            self.held().spilling += 1;
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            self.held().spilling -= 1;
        }
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        *self.held().of(reservation.consumer()) += additional;
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        *self.held().of(reservation.consumer()) -= shrink;
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let mut held = self.held();
        let consumer = reservation.consumer();
        let first_come = self.bytes / FIRST_COME_SHARE;
        let left = match consumer.can_spill() {
            true => {
                let shared = (self.bytes - first_come).saturating_sub(held.unspillable.saturating_sub(first_come));
                let others = held.total().saturating_sub(reservation.size());
                let most = shared / held.spilling.max(1) + first_come.saturating_sub(others);
                most.saturating_sub(reservation.size())
            }
            false => self.bytes.saturating_sub(held.total()),
        };
        if additional > left {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{} has {} and may have {} more of the memory for operators, {}, but needs {}",
                consumer.name(),
                human_readable_size(reservation.size()),
                human_readable_size(left),
                human_readable_size(self.bytes),
                human_readable_size(additional),
            )));
        }
        *held.of(consumer) += additional;
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.held().total()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes)
    }
}

impl Display for SharedPool {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}(used: {}, bytes: {})",
            self.name(),
            human_readable_size(self.reserved()),
            human_readable_size(self.bytes)
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn reservations(pool: &Arc<dyn MemoryPool>, spilling: usize) -> Vec<MemoryReservation> {
        (0..spilling).map(|_| MemoryConsumer::new("sort").with_can_spill(true).register(pool)).collect()
    }

    #[test]
    fn one_operator_of_many_has_half_and_the_others_an_even_share_of_the_rest() {
        let pool: Arc<dyn MemoryPool> = Arc::new(SharedPool::new(1000));
        let operators = reservations(&pool, 10);
        operators[0].try_grow(550).unwrap();
        assert!(operators[0].try_grow(1).is_err());
        for operator in &operators[1..] {
            operator.try_grow(50).unwrap();
            assert!(operator.try_grow(1).is_err());
        }
        assert_eq!(pool.reserved(), 1000);
        drop(operators);
        assert_eq!(pool.reserved(), 0);
        let alone = reservations(&pool, 1);
        alone[0].try_grow(1000).unwrap();
        assert!(alone[0].try_grow(1).is_err());
    }

    #[test]
    fn what_can_not_spill_takes_what_is_there_and_leaves_others_less() {
        let pool: Arc<dyn MemoryPool> = Arc::new(SharedPool::new(1000));
        let operators = reservations(&pool, 2);
        let join = MemoryConsumer::new("join").register(&pool);
        join.try_grow(900).unwrap();
        operators[0].try_grow(50).unwrap();
        assert!(operators[0].try_grow(1).is_err());
        operators[1].try_grow(50).unwrap();
        let error = join.try_grow(1).unwrap_err().to_string();
        assert!(error.contains("join has 900.0 B and may have 0.0 B more"), "{error}");
    }
}
