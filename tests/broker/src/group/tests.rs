//! Joins, syncs and silences at given times.

use super::*;
use tokio::sync::oneshot::{Receiver, channel};

const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(60);

struct Place {
    group: Group,
    now: Instant,
}

fn name(error: i16) -> String {
    ResponseError::try_from_code(error).map_or("ok".to_string(), |error| error.to_string())
}

impl Place {
    fn new() -> Place {
        let now = Instant::now();
        Place { group: Group::new(Kept::default(), Duration::ZERO, now), now }
    }

    fn join(&mut self, id: &str, instance: Option<&str>, protocols: &[&str]) -> Receiver<JoinGroupResponse> {
        let member = KeptMember {
            id: id.to_string(),
            instance: instance.map(str::to_string),
            client_id: "client".to_string(),
            host: "host".to_string(),
            session_timeout: SESSION,
            rebalance_timeout: REBALANCE,
            protocols: protocols.iter().map(|name| (name.to_string(), name.as_bytes().to_vec())).collect(),
            assignment: Vec::new(),
        };
        let (reply, answer) = channel();
        let join = Join { member, protocol_type: "consumer".to_string(), id_required: true, can_skip: true };
        self.group.join(join, reply, self.now);
        answer
    }

    /// Joins with the id that the first answer gives.
    fn join_new(&mut self, protocols: &[&str]) -> (String, Receiver<JoinGroupResponse>) {
        let first = self.join("", None, protocols).try_recv().unwrap();
        assert_eq!(name(first.error_code), "MemberIdRequired");
        let id = first.member_id.to_string();
        (id.clone(), self.join(&id, None, protocols))
    }

    fn sync(&mut self, id: &str, assignments: &[(&str, &str)]) -> Receiver<SyncGroupResponse> {
        let assignments = assignments.iter().map(|(id, part)| (id.to_string(), part.as_bytes().to_vec())).collect();
        let (reply, answer) = channel();
        let generation = self.group.generation;
        self.group.sync(id, generation, None, assignments, reply, self.now);
        answer
    }

    fn heartbeat(&mut self, id: &str) -> String {
        let generation = self.group.generation;
        self.group
            .heartbeat(id, generation, None, self.now)
            .map_or_else(|error| error.to_string(), |()| "ok".to_string())
    }

    fn later(&mut self, time: Duration) -> Option<Duration> {
        self.now += time;
        self.group.tick(self.now).map(|next| next - self.now)
    }

    /// Two members that have their parts; the first one leads.
    fn two() -> (Place, String, String) {
        let mut place = Place::new();
        let (one, mut answer) = place.join_new(&["range", "sticky"]);
        assert_eq!(answer.try_recv().unwrap().generation_id, 1);
        place.sync(&one, &[(&one, "all")]).try_recv().unwrap();
        let (two, mut answer) = place.join_new(&["sticky"]);
        assert!(answer.try_recv().is_err());
        assert_eq!(place.heartbeat(&one), "RebalanceInProgress");
        let mut again = place.join(&one, None, &["range", "sticky"]);
        let (leader, other) = (again.try_recv().unwrap(), answer.try_recv().unwrap());
        assert_eq!((leader.generation_id, other.generation_id), (2, 2));
        assert_eq!((leader.members.len(), other.members.len()), (2, 0));
        assert_eq!((leader.leader.as_str(), other.leader.as_str()), (one.as_str(), one.as_str()));
        assert_eq!(leader.protocol_name.as_deref(), Some("sticky"));
        let mut waiting = place.sync(&two, &[]);
        assert!(waiting.try_recv().is_err());
        assert_eq!(place.group.check_commit(&one, 2, None, false), Err(ResponseError::RebalanceInProgress));
        place.sync(&one, &[(&one, "a"), (&two, "b")]).try_recv().unwrap();
        assert_eq!(&waiting.try_recv().unwrap().assignment[..], b"b");
        assert_eq!((place.group.state(), place.heartbeat(&two)), ("Stable", "ok".to_string()));
        (place, one, two)
    }

    fn ids(&self) -> Vec<&str> {
        self.group.members.keys().map(String::as_str).collect()
    }
}

#[test]
fn a_silent_member_is_removed_after_its_session_and_the_others_join_again() {
    let (mut place, one, two) = Place::two();
    assert_eq!(place.later(SESSION / 2), Some(SESSION / 2));
    assert_eq!(place.heartbeat(&two), "ok");
    place.later(SESSION / 2);
    assert_eq!(place.ids(), [&two]);
    assert_eq!((place.group.state(), place.heartbeat(&one)), ("PreparingRebalance", "UnknownMemberId".to_string()));
    let alone = place.join(&two, None, &["sticky"]).try_recv().unwrap();
    assert_eq!((alone.generation_id, alone.leader.as_str(), alone.members.len()), (3, two.as_str(), 1));
}

#[test]
fn who_does_not_join_again_in_time_is_out() {
    let (mut place, one, two) = Place::two();
    let mut answer = place.join(&one, None, &["sticky"]);
    for _ in 0..7 {
        assert!(answer.try_recv().is_err());
        assert_eq!(place.heartbeat(&two), "RebalanceInProgress");
        place.later(REBALANCE / 7 + Duration::from_millis(1));
    }
    assert_eq!((answer.try_recv().unwrap().generation_id, place.ids()), (3, vec![one.as_str()]));
}

#[test]
fn who_joins_and_does_not_sync_in_time_is_out() {
    let (mut place, one, two) = Place::two();
    let _answer = place.join(&one, None, &["sticky"]);
    place.join(&two, None, &["sticky"]).try_recv().unwrap();
    let mut waiting = place.sync(&two, &[]);
    for _ in 0..7 {
        assert!(waiting.try_recv().is_err());
        place.heartbeat(&one);
        place.later(REBALANCE / 7 + Duration::from_millis(1));
    }
    assert_eq!(name(waiting.try_recv().unwrap().error_code), "RebalanceInProgress");
    assert_eq!(place.ids(), [&two]);
}

#[test]
fn who_leaves_is_out_at_once_and_an_empty_group_is_a_generation_further() {
    let (mut place, one, two) = Place::two();
    assert_eq!(place.group.leave(&one, None, place.now), Ok(one.clone()));
    assert_eq!(place.group.leave(&one, None, place.now), Err(ResponseError::UnknownMemberId));
    assert_eq!(place.heartbeat(&two), "RebalanceInProgress");
    place.group.leave(&two, None, place.now).unwrap();
    assert_eq!((place.group.state(), place.group.generation), ("Empty", 3));
    assert_eq!(place.group.check_commit("", -1, None, false), Ok(()));
    assert_eq!(place.group.check_commit(&one, 2, None, false), Err(ResponseError::UnknownMemberId));
}

#[test]
fn protocols_that_not_all_have_are_refused() {
    let (mut place, ..) = Place::two();
    let mut answer = place.join("", None, &["range"]);
    assert_eq!(name(answer.try_recv().unwrap().error_code), "InconsistentGroupProtocol");
    assert_eq!(place.group.state(), "Stable");
}

#[test]
fn commits_are_for_members_of_this_generation() {
    let (place, one, _) = Place::two();
    let check = |id: &str, generation, transactional| place.group.check_commit(id, generation, None, transactional);
    assert_eq!(check(&one, 2, false), Ok(()));
    for transactional in [false, true] {
        assert_eq!(check(&one, 1, transactional), Err(ResponseError::IllegalGeneration));
        assert_eq!(check("somebody", 2, transactional), Err(ResponseError::UnknownMemberId));
    }
    // Transactional producers that know of no members may; others may not while there are members.
    assert_eq!((check("", -1, true), check("", -1, false)), (Ok(()), Err(ResponseError::UnknownMemberId)));
}

#[test]
fn a_static_member_keeps_its_part_under_a_new_id_and_the_old_one_is_fenced() {
    let mut place = Place::new();
    let first = place.join("", Some("i"), &["range"]).try_recv().unwrap();
    let old = first.member_id.to_string();
    place.sync(&old, &[(&old, "part")]).try_recv().unwrap();
    let back = place.join("", Some("i"), &["range"]).try_recv().unwrap();
    let new = back.member_id.to_string();
    assert!(new != old && place.ids() == [&new]);
    assert_eq!((back.generation_id, back.skip_assignment, back.leader.as_str()), (1, true, new.as_str()));
    assert_eq!(&place.sync(&new, &[]).try_recv().unwrap().assignment[..], b"part");
    let fenced = Err(ResponseError::FencedInstanceId);
    assert_eq!(place.group.heartbeat(&old, 1, Some("i"), place.now), fenced);
    assert_eq!(place.group.check_commit(&old, 1, Some("i"), true), fenced);
    assert_eq!(name(place.join(&old, Some("i"), &["range"]).try_recv().unwrap().error_code), "FencedInstanceId");
    // It is kept over a restart, and may be asked to leave by its name.
    place.group = Group::new(place.group.kept(), Duration::ZERO, place.now);
    assert_eq!((place.group.state(), place.heartbeat(&new)), ("Stable", "ok".to_string()));
    assert_eq!(place.group.leave("", Some("i"), place.now), Ok(new));
    assert_eq!(place.group.state(), "Empty");
}

#[test]
fn a_new_group_waits_for_members_if_it_is_told_to() {
    let mut place = Place::new();
    place.group.initial_delay = Duration::from_secs(3);
    let (_, mut one) = place.join_new(&["range"]);
    let (_, mut two) = place.join_new(&["range"]);
    place.later(Duration::from_secs(2));
    assert!(one.try_recv().is_err());
    place.later(Duration::from_secs(1));
    assert_eq!((one.try_recv().unwrap().members.len(), two.try_recv().unwrap().generation_id), (2, 1));
}

#[test]
fn an_id_that_was_given_out_and_not_used_is_not_waited_for_for_ever() {
    let (mut place, one, two) = Place::two();
    place.join("", None, &["sticky"]).try_recv().unwrap();
    let mut answer = place.join(&one, None, &["sticky"]);
    let _other = place.join(&two, None, &["sticky"]);
    assert!(answer.try_recv().is_err());
    place.later(SESSION);
    assert_eq!(answer.try_recv().unwrap().members.len(), 2);
}
