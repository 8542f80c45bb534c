//! The end of an attempt in few bytes: a success of which nothing special is to be told, as most are.
//!
//! A frame of JSON begins with a brace or a quotation mark, so the first byte tells the two forms apart. Numbers are written
//! seven bits at a time. Both ends are the same program, so there is no version. Deliberately absent: everything that
//! a plain success does not have; such an end travels as JSON.

use super::Finished;
use crate::claim::Ticket;
use crate::task::varint::{Reader, put, put_signed};
use crate::task::{Isolation, OutputRef, TaskId, TreeGuard, Usage, Verdict};

/// What no JSON begins with.
const MARK: u8 = 0xb1;
/// A result follows at the end.
const HAS_RESULT: u8 = 1;
/// The cap cut some of the output off.
const TRUNCATED: u8 = 2;

/// Appends the end of an attempt; false, and nothing is written, if it has more to tell than this form can.
pub(super) fn write(finished: &Finished, buffer: &mut Vec<u8>) -> bool {
    // All fields are named, so that a new one has to be thought of here.
    let Finished {
        ticket,
        id,
        attempt,
        verdict: Verdict::Exited { code: 0 },
        given_back: false,
        isolation,
        guard,
        usage,
        output,
        claimed_us,
        started_us,
        finished_us,
        limits,
        sandbox,
        kept: None,
        artifacts: None,
        leaked: false,
        result,
        error: None,
        checkpoint: false,
        progress: None,
    } = finished
    else {
        return false;
    };
    let Some(figures) = usage.plain() else { return false };
    if !limits.is_empty() || !sandbox.is_empty() {
        return false;
    }
    let OutputRef { segment, offset, length, stdout_bytes, stderr_bytes, truncated } = *output;
    let flags = if result.is_some() { HAS_RESULT } else { 0 } | if truncated { TRUNCATED } else { 0 };
    buffer.extend_from_slice(&[MARK, flags, *isolation as u8, *guard as u8]);
    buffer.extend_from_slice(&id.to_u128().to_le_bytes());
    for number in [ticket.slot.into(), ticket.generation, (*attempt).into()] {
        put(buffer, number);
    }
    put_signed(buffer, *claimed_us);
    put_signed(buffer, started_us.wrapping_sub(*claimed_us));
    put_signed(buffer, finished_us.wrapping_sub(*started_us));
    for number in figures {
        put(buffer, number);
    }
    for number in [segment, offset, length, stdout_bytes, stderr_bytes] {
        put(buffer, number);
    }
    buffer.extend_from_slice(result.as_deref().unwrap_or_default().as_bytes());
    true
}

/// Reads what [`write`] has written: nothing if this is another form, and nothing inside if it is broken.
#[expect(clippy::option_option, reason = "whether it is ours, and whether it can be read")]
pub(super) fn read(frame: &[u8]) -> Option<Option<Finished>> {
    let body = frame.strip_prefix(&[MARK])?;
    Some(read_body(body))
}

fn read_body(body: &[u8]) -> Option<Finished> {
    let (&[flags, isolation, guard], rest) = body.split_first_chunk::<3>()?;
    let (id, rest) = rest.split_first_chunk::<16>()?;
    let mut reader = Reader::new(rest);
    let ticket = Ticket { slot: u32::try_from(reader.take()?).ok()?, generation: reader.take()? };
    let attempt = u32::try_from(reader.take()?).ok()?;
    let claimed_us = reader.take_signed()?;
    let started_us = claimed_us.wrapping_add(reader.take_signed()?);
    let finished_us = started_us.wrapping_add(reader.take_signed()?);
    let usage = Usage::from_plain(reader.take_all()?);
    let output = OutputRef {
        segment: reader.take()?,
        offset: reader.take()?,
        length: reader.take()?,
        stdout_bytes: reader.take()?,
        stderr_bytes: reader.take()?,
        truncated: flags & TRUNCATED != 0,
    };
    let result = if flags & HAS_RESULT == 0 { None } else { Some(String::from_utf8(reader.rest().to_vec()).ok()?) };
    let verdict = Verdict::Exited { code: 0 };
    let id = TaskId::from_u128(u128::from_le_bytes(*id));
    Some(Finished {
        isolation: Isolation::from_u8(isolation)?,
        guard: TreeGuard::from_u8(guard)?,
        usage,
        output,
        claimed_us,
        started_us,
        finished_us,
        result,
        ..Finished::blank(ticket, (id, attempt), verdict, finished_us)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Frames, Report, encode, encode_finished};
    use super::*;
    use crate::task::UsageSource;
    use proptest::prelude::*;

    fn plain() -> Finished {
        let id = TaskId::new(1_700_000_000_000, 0xff_0000_0001, 77);
        let ticket = Ticket { slot: 3, generation: 1 << 39 };
        Finished::blank(ticket, (id, 1), Verdict::Exited { code: 0 }, 1_700_000_000_000_000)
    }

    fn there_and_back(finished: &Finished) -> (Finished, u8) {
        let mut buffer = Vec::new();
        encode_finished(finished, &mut buffer).unwrap();
        let mut frames = Frames::default();
        frames.feed(&buffer);
        let Some(Report::Finished(back)) = frames.pop_report().unwrap() else { panic!("another report") };
        assert_eq!(frames.pending(), 0);
        (*back, buffer[4])
    }

    proptest! {
        #[test]
        fn a_plain_success_comes_back_as_it_was(
            numbers in prop::collection::vec(any::<u64>(), 11),
            times in (any::<i64>(), any::<i64>(), any::<i64>()),
            result in prop::option::of(".*"),
            truncated in any::<bool>(),
        ) {
            let mut finished = plain();
            let [wall_us, user_us, system_us, max_rss_bytes, read_bytes, written_bytes] = numbers[..6] else { panic!() };
            finished.usage =
                Usage { wall_us, user_us, system_us, max_rss_bytes, read_bytes, written_bytes, ..Usage::default() };
            let [segment, offset, length, stdout_bytes, stderr_bytes] = numbers[6..] else { panic!() };
            finished.output = OutputRef { segment, offset, length, stdout_bytes, stderr_bytes, truncated };
            (finished.claimed_us, finished.started_us, finished.finished_us) = times;
            (finished.isolation, finished.guard) = (Isolation::Docker, TreeGuard::Engine);
            finished.result = result;
            let (back, first) = there_and_back(&finished);
            prop_assert_eq!((back, first), (finished, MARK));
        }
    }

    #[test]
    fn whatever_is_special_travels_as_json() {
        let special = [
            Finished { verdict: Verdict::Exited { code: 1 }, ..plain() },
            Finished { given_back: true, ..plain() },
            Finished { leaked: true, ..plain() },
            Finished { checkpoint: true, ..plain() },
            Finished { error: Some("no".into()), ..plain() },
            Finished { sandbox: vec!["no network".into()], ..plain() },
            Finished { kept: Some("/kept".into()), ..plain() },
            Finished { usage: Usage { peak_pids: Some(1), ..Usage::default() }, ..plain() },
            Finished { usage: Usage { source: UsageSource::Cgroup, ..Usage::default() }, ..plain() },
            Finished { progress: Some(super::super::Progress::default()), ..plain() },
        ];
        for finished in special {
            let (back, first) = there_and_back(&finished);
            assert_eq!((&back, first), (&finished, b'{'));
            let mut long = Vec::new();
            encode(&Report::Finished(Box::new(finished)), &mut long).unwrap();
        }
    }

    #[test]
    fn a_brief_report_that_ends_too_early_is_an_error() {
        let mut buffer = Vec::new();
        assert!(write(&plain(), &mut buffer) && buffer.len() < 64, "{} bytes", buffer.len());
        for end in 1..buffer.len() {
            assert_eq!(read(&buffer[..end]), Some(None), "{end} bytes");
        }
        assert_eq!(read(br#"{"finished":{}}"#), None);
    }
}
