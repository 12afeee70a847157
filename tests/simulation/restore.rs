//! Reading states back: what the daemon's restorer does with the changelog of a partition that was assigned.

use crate::cluster::Topic;
use crate::happenings::Event;
use crate::world::World;
use rand::RngExt;

/// Goes one step on. `read`: how far the changelog was read, and how far it reached when reading began.
pub fn go_on(world: &mut World, instance: usize, partition: i32, epoch: u64, read: Option<(i64, i64)>) {
    let incarnation = world.instances[instance].incarnation;
    let again = |read| Event::Restore { instance, incarnation, partition, epoch, read };
    let failed = world.answer() != crate::world::Answer::Done;
    let log = world.cluster.logs.entry((Topic::Changelog, partition)).or_default();
    let (stable, end) = (log.stable(), log.end);
    let Some((next, high)) = read else {
        // What a predecessor has sent offsets for is decided first.
        if failed || world.cluster.is_unstable(partition) {
            return world.within(300_000, again(None));
        }
        // Gone on with from where the copy ends.
        let mark = world.instances[instance].store.mark(partition);
        world.note(Some(instance), &format_args!("reads the changelog of {partition} from {mark} to {end}"));
        if mark == 0 {
            world.instances[instance].store.clear(partition);
        }
        let committed = world.cluster.offsets.get(&partition).copied();
        world.instances[instance].committed.insert(partition, committed);
        return world.within(5_000, again(Some((mark, end))));
    };
    if failed {
        return world.within(300_000, again(None));
    }
    let most = world.dice.random_range(1..50);
    let log = &world.cluster.logs[&(Topic::Changelog, partition)];
    let mut reached = stable;
    for (count, (offset, message)) in log.committed(next).enumerate() {
        if count == most {
            reached = offset;
            break;
        }
        let key = message.key.as_deref().unwrap_or_default();
        world.instances[instance].store.put(partition, key, message.value.clone());
        world.instances[instance].store.restored_to(partition, offset + 1);
    }
    if reached >= high {
        world.note(Some(instance), &format_args!("{partition} is restored"));
        world.instances[instance].store.read_to(partition, high);
        world.instances[instance].restoring.remove(&partition);
        let committed = world.instances[instance].committed.get(&partition).copied().flatten();
        world.instances[instance].assignment.restored(partition, epoch, committed);
        let coordinator = world.instances[instance].coordinator;
        return world.wake(coordinator);
    }
    world.within(5_000, again(Some((reached, high))));
}
