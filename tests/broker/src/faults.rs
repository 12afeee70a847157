//! What a test wants to go wrong: faults for the next requests of a kind, and topics and groups that are not allowed.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// The request is handled, the answer comes this much later.
    Delay(Duration),
    /// The request is handled this much later.
    Late(Duration),
    /// The request is not handled before faults are cleared.
    Hold,
    /// The connection is closed before the request is handled.
    DropBefore,
    /// The request is handled, and the connection closed without an answer.
    DropAfter,
    /// The request is handled, and the connection closed in the middle of the answer.
    Cut,
    /// The request is not handled and answered with this error.
    Error(ResponseError),
    /// For EndTxn: the decision is written, and the broker ends before it does what was decided.
    Die,
}

/// What can be done with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    Describe,
    Read,
    Write,
}

/// A fault that waits for its request.
struct Waiting {
    /// Absent: whoever sends the request.
    client_id: Option<String>,
    fault: Fault,
}

#[derive(Default)]
pub struct Faults {
    /// How often the faults of a request were cleared: what is held waits for the next time.
    cleared: HashMap<i16, u64>,
    next: HashMap<i16, VecDeque<Waiting>>,
    denied_topics: BTreeSet<(String, Access)>,
    denied_groups: BTreeSet<String>,
}

impl Faults {
    /// The next `count` requests of this kind, of this client if one is named, after those that have a fault already.
    pub fn add(&mut self, client_id: Option<&str>, api: ApiKey, count: usize, fault: Fault) {
        let waiting = |_| Waiting { client_id: client_id.map(str::to_string), fault };
        self.next.entry(api as i16).or_default().extend((0..count).map(waiting));
    }

    /// How many still wait for their request.
    pub fn left(&self) -> usize {
        self.next.values().map(VecDeque::len).sum()
    }

    pub fn clear(&mut self) {
        for (api, ..) in crate::requests::SUPPORTED {
            self.release(api);
        }
    }

    /// Clears the faults of one kind of request.
    pub fn release(&mut self, api: ApiKey) {
        self.next.remove(&(api as i16));
        *self.cleared.entry(api as i16).or_default() += 1;
    }

    /// How often this kind of request was released.
    pub fn released(&self, api: ApiKey) -> u64 {
        self.cleared.get(&(api as i16)).copied().unwrap_or_default()
    }

    /// The fault of a request that has come.
    pub fn take(&mut self, client_id: &str, api: ApiKey) -> Option<Fault> {
        let waiting = self.next.get_mut(&(api as i16))?;
        let is_for = |waiting: &Waiting| waiting.client_id.as_deref().is_none_or(|id| id == client_id);
        let place = waiting.iter().position(is_for)?;
        waiting.remove(place).map(|waiting| waiting.fault)
    }

    pub fn set_topic(&mut self, topic: &str, access: Access, allowed: bool) {
        let entry = (topic.to_string(), access);
        _ = if allowed { self.denied_topics.remove(&entry) } else { self.denied_topics.insert(entry) };
    }

    pub fn set_group(&mut self, group: &str, allowed: bool) {
        _ = if allowed { self.denied_groups.remove(group) } else { self.denied_groups.insert(group.to_string()) };
    }

    pub fn check_topic(&self, topic: &str, access: Access) -> Result<(), ResponseError> {
        let denied = self.denied_topics.contains(&(topic.to_string(), access));
        if denied { Err(ResponseError::TopicAuthorizationFailed) } else { Ok(()) }
    }

    pub fn check_group(&self, group: &str) -> Result<(), ResponseError> {
        if self.denied_groups.contains(group) { Err(ResponseError::GroupAuthorizationFailed) } else { Ok(()) }
    }

    /// Does what a line of the control port says.
    pub fn command(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["fault", "clear"] => self.clear(),
            ["fault", what, api, count, ref more @ ..] => {
                let (client_id, more) = match more {
                    [more @ .., "of", client_id] => (Some(*client_id), more),
                    more => (None, more),
                };
                let api = api_named(api).ok_or_else(|| format!("there is no request {api}"))?;
                let count = count.parse().map_err(|_| format!("{count} is no number of requests"))?;
                let number = match more {
                    [] => None,
                    [number] => Some(number.parse().map_err(|_| format!("{number} is no number"))?),
                    _ => return Err(USAGE.to_string()),
                };
                self.add(client_id, api, count, fault(what, number)?);
            }
            [what @ ("deny" | "allow"), "group", group] => self.set_group(group, what == "allow"),
            [what @ ("deny" | "allow"), access, topic] => {
                let access = match access {
                    "describe" => Access::Describe,
                    "read" => Access::Read,
                    "write" => Access::Write,
                    _ => return Err(USAGE.to_string()),
                };
                self.set_topic(topic, access, what == "allow");
            }
            _ => return Err(USAGE.to_string()),
        }
        Ok(())
    }
}

const USAGE: &str = "fault delay|late|hold|drop-before|drop-after|cut|error|die API COUNT [MS or ERROR CODE] [of CLIENT ID], fault clear, \
                     deny|allow describe|read|write TOPIC, deny|allow group GROUP";

fn fault(what: &str, number: Option<i64>) -> Result<Fault, String> {
    Ok(match (what, number) {
        ("delay", Some(ms @ 0..)) => Fault::Delay(Duration::from_millis(ms as u64)),
        ("late", Some(ms @ 0..)) => Fault::Late(Duration::from_millis(ms as u64)),
        ("hold", None) => Fault::Hold,
        ("drop-before", None) => Fault::DropBefore,
        ("drop-after", None) => Fault::DropAfter,
        ("cut", None) => Fault::Cut,
        ("error", Some(code)) => {
            let code = i16::try_from(code).ok().and_then(ResponseError::try_from_code);
            Fault::Error(code.ok_or("no code of an error")?)
        }
        ("die", None) => Fault::Die,
        _ => return Err(USAGE.to_string()),
    })
}

/// A request by Kafka's name of it, such as `Produce`.
fn api_named(name: &str) -> Option<ApiKey> {
    crate::requests::SUPPORTED.iter().map(|(api, ..)| *api).find(|api| format!("{api:?}") == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_do_what_they_say_and_others_are_refused() {
        let mut faults = Faults::default();
        faults.command("fault delay Produce 2 50").unwrap();
        faults.command("fault error Produce 1 6").unwrap();
        let delay = Some(Fault::Delay(Duration::from_millis(50)));
        assert_eq!((faults.take("", ApiKey::Fetch), faults.take("", ApiKey::Produce)), (None, delay));
        assert_eq!(faults.take("", ApiKey::Produce), delay);
        let not_leader = ResponseError::NotLeaderOrFollower;
        assert_eq!(faults.take("", ApiKey::Produce), Some(Fault::Error(not_leader)));
        assert_eq!(faults.take("", ApiKey::Produce), None);
        faults.command("fault late Produce 1 5 of ada").unwrap();
        assert_eq!((faults.take("bob", ApiKey::Produce), faults.left()), (None, 1));
        assert_eq!(faults.take("ada", ApiKey::Produce), Some(Fault::Late(Duration::from_millis(5))));
        assert_eq!(faults.left(), 0);
        faults.command("deny write t").unwrap();
        assert!(faults.check_topic("t", Access::Write).is_err() && faults.check_topic("t", Access::Read).is_ok());
        faults.command("allow write t").unwrap();
        faults.command("deny group g").unwrap();
        assert!(faults.check_topic("t", Access::Write).is_ok() && faults.check_group("g").is_err());
        faults.command("fault cut Fetch 3").unwrap();
        faults.command("fault clear").unwrap();
        assert_eq!(faults.take("", ApiKey::Fetch), None);
        for line in ["", "fault", "fault delay Produce 1", "fault cut Bake 1", "fault cut Fetch x", "deny eat t"] {
            assert!(faults.command(line).is_err(), "{line}");
        }
    }
}
