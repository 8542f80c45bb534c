//! The user that a sandboxed task runs as: from a name to numbers, and making the room its own.
//!
//! Names are looked up in the worker, where libc may read files and ask services; the child gets numbers. What was made
//! over to another user is not taken back: a room that has changed hands is made anew when it is cleaned. Deliberately
//! absent: whether the worker may become that user.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::AtFlags;
use nix::unistd::{Gid, Group, Uid, User, fchown, fchownat, getgrouplist};

use crate::sys::confine::Identity;

/// Finds `NAME`, `NUMBER`, `NAME:GROUP` or `NUMBER:GROUP`.
///
/// # Errors
/// In words: nobody is called that.
pub fn find(text: &str) -> Result<Identity, String> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let number: Option<u32> = user.parse().ok();
    let entry = match number {
        Some(number) => User::from_uid(Uid::from_raw(number)),
        None => User::from_name(user),
    };
    let entry = entry.map_err(|errno| format!("the user '{user}' cannot be looked up: {}", errno.desc()))?;
    let group = match group {
        Some(group) => Some(find_group(group)?),
        None => entry.as_ref().map(|entry| entry.gid),
    };
    match (entry, number, group) {
        (Some(entry), _, Some(group)) => {
            let name = CString::new(entry.name).unwrap_or_default();
            let groups = getgrouplist(&name, group).unwrap_or_else(|_| vec![group]);
            Ok(identity(entry.uid.as_raw(), group, groups))
        }
        (None, Some(user), Some(group)) => Ok(identity(user, group, vec![group])),
        (None, Some(user), None) => Err(format!("user {user} is not known here: say its group as well, {user}:GROUP")),
        (None | Some(_), _, _) => Err(format!("there is no user '{user}'")),
    }
}

fn find_group(text: &str) -> Result<Gid, String> {
    if let Ok(number) = text.parse() {
        return Ok(Gid::from_raw(number));
    }
    let entry =
        Group::from_name(text).map_err(|errno| format!("the group '{text}' cannot be looked up: {}", errno.desc()))?;
    entry.map(|entry| entry.gid).ok_or_else(|| format!("there is no group '{text}'"))
}

fn identity(user: u32, group: Gid, groups: Vec<Gid>) -> Identity {
    Identity { user, group: group.as_raw(), groups: groups.into_iter().map(Gid::as_raw).collect() }
}

/// Makes these paths, and what these descriptors are of, this user's own. A link is made over, and not followed.
///
/// # Errors
/// What the kernel says.
pub fn make_over(identity: &Identity, paths: &[&Path], fds: &[impl AsFd]) -> io::Result<()> {
    let (user, group) = (Some(Uid::from_raw(identity.user)), Some(Gid::from_raw(identity.group)));
    for path in paths {
        fchownat(nix::fcntl::AT_FDCWD, *path, user, group, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    }
    for fd in fds {
        fchown(fd.as_fd(), user, group)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let root = find("root").unwrap();
        assert_eq!((root.user, root.group), (0, 0));
        assert!(root.groups.contains(&0));
        assert_eq!(find("root:65534").unwrap().group, 65534);
        assert_eq!(find("54321:12345").unwrap(), Identity { user: 54321, group: 12345, groups: vec![12345] });
        assert!(find("54321").unwrap_err().contains("54321:GROUP"));
        assert!(find("no-such-user-here").unwrap_err().contains("there is no user"));
        assert!(find("root:no-such-group-here").unwrap_err().contains("there is no group"));
    }
}
