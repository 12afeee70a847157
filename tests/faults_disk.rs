//! The disk is full, or read-only: errors are told and go away, nothing is lost, work goes on once there is space.
//!
//! A small file system of its own is a tmpfs in a mount namespace. That needs Linux and the right to make user
//! namespaces; where it is refused these tests fail and say so. On other systems there is no such thing.
#![cfg(target_os = "linux")]

mod daemon_harness;
mod fault_report;
mod faults;

use daemon_harness::{Daemon, Place, ended, eventually};
use faults::{Load, Shape, judge};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Small batches, so that commits fail too and not requests alone; the file is to grow fast.
const SETTINGS: [&str; 4] = ["--set", "pipeline.batch_records=64", "--set", "http.wait_timeout=2s"];

/// A file system in memory, mounted at a place's data directory for the processes that enter its namespace. Ends with
/// its holder, which ends when this is dropped, or the test.
struct Disk {
    holder: Child,
    at: PathBuf,
}

impl Disk {
    fn new(place: &Place, megabytes: u32) -> Disk {
        std::fs::create_dir_all(place.data()).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
        command.arg(format!("mount -t tmpfs -o size={megabytes}m strand \"$0\" && echo mounted && exec cat"));
        command.arg(place.data()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut holder = command.spawn().expect("unshare, of util-linux, makes the small file system");
        let mut said = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        if said != "mounted\n" {
            let mut why = String::new();
            holder.stderr.take().unwrap().read_to_string(&mut why).unwrap();
            panic!(
                "no file system of its own could be mounted in a user namespace: {why}\nRun as root, or allow it: \
                 sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0"
            );
        }
        Disk { holder, at: place.data() }
    }

    /// The command, run where the disk is mounted.
    fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(["--user", "--mount", "--preserve-credentials", "--target", &self.holder.id().to_string()]);
        inside.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    fn remount(&self, options: &str) {
        let mut mount = Command::new("mount");
        let status = self.inside(mount.args(["-o", &format!("remount,{options}")]).arg(&self.at)).status().unwrap();
        assert!(status.success(), "remount,{options}: {status}");
    }

    /// A path on the disk, as it is reached from outside.
    fn path(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.at.strip_prefix("/").unwrap()).join(name)
    }

    /// Takes all the space that is left; freed by removing the file.
    fn fill(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let mut file = std::fs::File::create(&path).unwrap();
        let error = std::io::copy(&mut std::io::repeat(0), &mut file).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
        path
    }

    /// Runs it where it should not start; exit code and what it said.
    fn fails(&self, place: &Place) -> (i32, String) {
        ended(self.inside(&place.command(&SETTINGS)))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn failed_requests(daemon: &Daemon) -> f64 {
    daemon.metric("strand_ingest_requests_total{outcome=\"failed\"}")
}

/// As long as there is still room in the file, records are taken meanwhile.
fn wait_for_failures(daemon: &Daemon, load: &Load, count: f64, unready: &mut u64) {
    let (mut before, mut since) = ((0.0, 0), Instant::now());
    while failed_requests(daemon) < count {
        let ready = daemon.get("/readyz");
        *unready += u64::from(ready.status == 503 && ready.body.contains("commit"));
        let now = (failed_requests(daemon), load.acknowledged());
        if now != before {
            (before, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < Duration::from_secs(30), "neither taken nor refused\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait_for_more(load: &Load, records: u64) {
    let before = load.acknowledged();
    eventually("records are acknowledged", || load.acknowledged() >= before + records);
}

#[test]
fn a_full_disk_loses_nothing_and_work_goes_on_when_there_is_space() {
    let runs = fault_report::size("STRAND_FULL_DISKS", 3);
    let place = Place::new();
    let mut megabytes = 16;
    let disk = Disk::new(&place, megabytes);
    let mut daemon = Daemon::start(disk.inside(&place.command(&SETTINGS)));
    let load = Load::start(Shape { most: 200, ..Shape::default() });
    load.point_at(&daemon);
    let (mut unready, mut served, mut not_started) = (0, 0, 0);
    for run in 0..runs {
        wait_for_more(&load, 200);
        // Something else takes the space on the same disk, or the daemon itself has taken it all.
        let before = failed_requests(&daemon);
        let ballast = disk.fill("ballast");
        wait_for_failures(&daemon, &load, before + 10.0, &mut unready);
        // What is there is served if the store can be opened again without space; else the client is told to come later.
        let answer = daemon.get("/v1/labels?limit=10");
        match answer.status {
            200 => served += u64::from(answer.lines().len() == 10),
            _ => assert_eq!((answer.status, answer.retry_after.as_deref()), (503, Some("1")), "{answer:?}"),
        }
        match run % 3 {
            0 => std::fs::remove_file(&ballast).unwrap(),
            1 => {
                megabytes += 16;
                disk.remount(&format!("size={megabytes}m"));
            }
            _ => {
                // Killed while the disk is full: it starts all the same, or says why not.
                daemon.kill();
                let mut full = Daemon::spawn(disk.inside(&place.command(&SETTINGS)));
                eventually("it listens or has ended", || full.listens_at().is_some() || full.has_ended());
                if full.has_ended() {
                    let (status, said) = (full.wait(), full.log());
                    assert_eq!(status.code(), Some(1), "{said}");
                    assert!(said.contains("No space left") && said.contains("strand.redb"), "{said}");
                    not_started += 1;
                }
                assert!(!full.log().contains("panicked"), "{}", full.log());
                full.kill();
                std::fs::remove_file(&ballast).unwrap();
                daemon = Daemon::start(disk.inside(&place.command(&SETTINGS)));
                load.point_at(&daemon);
            }
        }
        eventually("it is ready again", || daemon.get("/readyz").status == 200);
        wait_for_more(&load, 200);
        let _ = std::fs::remove_file(&ballast);
        // Room for the next run.
        megabytes += 16;
        disk.remount(&format!("size={megabytes}m"));
    }
    let sent = load.stop();
    let verdict = judge(&daemon, &sent);
    let refused = sent.refused;
    let note = format!(
        "{refused} requests refused; labels served meanwhile: {served}; not started without space: {not_started}"
    );
    verdict.must_be_good("disk full", runs, note);
    assert!(refused >= runs && unready > 0, "refused {refused}, unready {unready}");
    assert!(daemon.stop().success());
}

#[test]
fn on_a_read_only_disk_it_does_not_start_and_says_why() {
    let runs = fault_report::size("STRAND_READ_ONLY_DISKS", 3);
    let place = Place::new();
    let disk = Disk::new(&place, 64);
    let load = Load::start(Shape::default());
    // Nothing there yet.
    disk.remount("ro");
    let (code, said) = disk.fails(&place);
    assert!(code == 1 && said.contains("Read-only file system"), "{code}: {said}");
    for _ in 0..runs {
        disk.remount("rw");
        let daemon = Daemon::start(disk.inside(&place.command(&SETTINGS)));
        load.point_at(&daemon);
        wait_for_more(&load, 300);
        daemon.kill();
        disk.remount("ro");
        let (code, said) = disk.fails(&place);
        assert!(code == 1 && said.contains("strand.redb") && said.contains("Read-only file system"), "{code}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    disk.remount("rw");
    let daemon = Daemon::start(disk.inside(&place.command(&SETTINGS)));
    load.point_at(&daemon);
    let sent = load.stop();
    judge(&daemon, &sent).must_be_good("disk read-only", runs, "not started, with words; then as before".to_string());
    assert!(daemon.stop().success());
}
