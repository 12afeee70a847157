//! What must outlive the process beside the records: a file of lines, each a checksum and an entry in JSON. The last
//! entry about a thing counts. Entries are written before what they say is acknowledged; as long as the machine runs on,
//! a killed process loses none.

use crate::group::Kept;
use crate::offsets::Committed;
use crate::transaction::Transaction;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// From this size on, the file is written anew with what counts.
const LARGE: u64 = 64 << 20;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// A topic was created, or has more partitions or other settings.
    Topic {
        name: String,
        id: u128,
        partitions: i32,
        settings: BTreeMap<String, String>,
    },
    TopicDeleted {
        name: String,
    },
    /// Records before this offset were deleted.
    Start {
        topic: String,
        partition: i32,
        offset: i64,
    },
    /// Producer ids below this one are taken.
    ProducerIds {
        next: i64,
    },
    Transaction {
        id: String,
        transaction: Transaction,
    },
    Group {
        group: String,
        kept: Kept,
    },
    GroupDeleted {
        group: String,
    },
    Offset {
        group: String,
        topic: String,
        partition: i32,
        committed: Committed,
    },
}

pub struct Journal {
    path: PathBuf,
    file: File,
    size: u64,
    /// Size at which it is written anew.
    limit: u64,
}

impl Journal {
    /// Opens or creates the journal of a directory; answers what it says. A last line that was not written to its end is
    /// cut off: what it says was never acknowledged.
    pub fn open(dir: &Path) -> Result<(Journal, Vec<Entry>)> {
        let path = dir.join("journal");
        let file = OpenOptions::new().append(true).create(true).open(&path);
        let file = file.with_context(|| path.display().to_string())?;
        let content = std::fs::read(&path)?;
        let (mut entries, mut size) = (Vec::new(), 0);
        for line in content.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            let Some(entry) = parse(line) else { bail!("{}: the line at byte {size} is damaged", path.display()) };
            entries.push(entry);
            size += line.len();
        }
        file.set_len(size as u64)?;
        Ok((Journal { path, file, size: size as u64, limit: LARGE }, entries))
    }

    pub fn append(&mut self, entry: &Entry) {
        let line = line(entry);
        self.file.write_all(&line).expect("the journal can be written");
        self.size += line.len() as u64;
    }

    pub fn is_large(&self) -> bool {
        self.size > self.limit
    }

    /// Replaces all entries by these, which say the same.
    pub fn rewrite(&mut self, entries: &[Entry]) {
        let content: Vec<u8> = entries.iter().flat_map(line).collect();
        let new = self.path.with_extension("new");
        std::fs::write(&new, &content).expect("the journal can be written");
        std::fs::rename(&new, &self.path).expect("the journal can be replaced");
        self.file = OpenOptions::new().append(true).open(&self.path).expect("the journal can be opened");
        self.size = content.len() as u64;
        self.limit = LARGE.max(2 * self.size);
    }
}

fn line(entry: &Entry) -> Vec<u8> {
    let json = serde_json::to_string(entry).expect("an entry is JSON");
    format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes())).into_bytes()
}

fn parse(line: &[u8]) -> Option<Entry> {
    let (sum, json) = std::str::from_utf8(line).ok()?.trim_end().split_once(' ')?;
    let sound = u32::from_str_radix(sum, 16).ok()? == crc32c::crc32c(json.as_bytes());
    sound.then(|| serde_json::from_str(json).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_a_cut_line_is_dropped_a_damaged_one_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, entries) = Journal::open(dir.path()).unwrap();
        assert_eq!(entries, []);
        let (one, two) = (Entry::ProducerIds { next: 5 }, Entry::TopicDeleted { name: "t".to_string() });
        journal.append(&one);
        journal.append(&two);
        let content = std::fs::read(&path).unwrap();
        std::fs::write(&path, &content[..content.len() - 1]).unwrap();
        let (mut journal, entries) = Journal::open(dir.path()).unwrap();
        assert_eq!(entries, std::slice::from_ref(&one));
        journal.append(&two);
        assert_eq!(Journal::open(dir.path()).unwrap().1, [one, two.clone()]);
        journal.rewrite(std::slice::from_ref(&two));
        journal.append(&two);
        assert_eq!(Journal::open(dir.path()).unwrap().1, [two.clone(), two]);
        let mut content = std::fs::read(&path).unwrap();
        content[12] ^= 1;
        std::fs::write(&path, &content).unwrap();
        assert!(Journal::open(dir.path()).err().unwrap().to_string().contains("byte 0 is damaged"));
    }
}
