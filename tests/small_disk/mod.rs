//! A small file system of its own: a tmpfs in a mount namespace. That needs Linux and the right to make user namespaces;
//! where it is refused the tests fail and say so.
#![allow(dead_code, reason = "each test file uses a part")]

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A file system in memory, mounted at a directory for the processes that enter its namespace. Ends with
/// its holder, which ends when this is dropped, or the test.
pub struct Disk {
    holder: Child,
    at: PathBuf,
}

impl Disk {
    pub fn at(at: PathBuf, megabytes: u32) -> Disk {
        std::fs::create_dir_all(&at).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
        command.arg(format!("mount -t tmpfs -o size={megabytes}m strand \"$0\" && echo mounted && exec cat"));
        command.arg(&at).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
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
        Disk { holder, at }
    }

    /// The command, run where the disk is mounted.
    pub fn inside(&self, command: &Command) -> Command {
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

    pub fn remount(&self, options: &str) {
        let mut mount = Command::new("mount");
        let status = self.inside(mount.args(["-o", &format!("remount,{options}")]).arg(&self.at)).status().unwrap();
        assert!(status.success(), "remount,{options}: {status}");
    }

    /// A path on the disk, as it is reached from outside.
    pub fn path(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.at.strip_prefix("/").unwrap()).join(name)
    }

    /// Takes all the space that is left; freed by removing the file.
    pub fn fill(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let mut file = std::fs::File::create(&path).unwrap();
        let error = std::io::copy(&mut std::io::repeat(0), &mut file).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
