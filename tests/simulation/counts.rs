//! What was made to happen, and what came of it.

#[derive(Debug, Default, Clone)]
pub struct Counts {
    pub crashes: u64,
    pub freezes: u64,
    pub zombies: u64,
    pub restarts: u64,
    pub deaf: u64,
    pub rebalances: u64,
    pub errors: u64,
    pub lost_answers: u64,
    pub slow: u64,
    pub committed: u64,
    pub aborted: u64,
    pub fenced: u64,
    pub virtual_us: u64,
    pub load_errors: u64,
    pub rewinds: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.crashes += other.crashes;
        self.freezes += other.freezes;
        self.zombies += other.zombies;
        self.restarts += other.restarts;
        self.deaf += other.deaf;
        self.rebalances += other.rebalances;
        self.errors += other.errors;
        self.lost_answers += other.lost_answers;
        self.slow += other.slow;
        self.committed += other.committed;
        self.aborted += other.aborted;
        self.fenced += other.fenced;
        self.virtual_us += other.virtual_us;
        self.load_errors += other.load_errors;
        self.rewinds += other.rewinds;
    }
}
