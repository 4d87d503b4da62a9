//! Samples of every message of schedules.

use super::{
    CancelScheduled, CancelScheduledAck, EditScheduled, ListScheduled, Misfire, PauseScheduled, Request, Response,
    ResumeScheduled, Schedule, ScheduleClock, ScheduleState, ScheduledAck, ScheduledEntry, ScheduledList,
    ScheduledResult,
};
use crate::id::ScheduleId;
use crate::target::TargetField;
use crate::testing::AT_MS;

/// No field is written as `null`.
pub(crate) const NULLS: &[(&str, &str)] = &[];

const ID: &str = "5c0d8f1e-9a3b-4c6d-8e7f-0a1b2c3d4e5f";
const CRON: &str = "0 9 * * mon-fri";
const NONCE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
const SEALED: &str = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQ";

fn id() -> ScheduleId {
    ID.into()
}

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let once =
        Schedule { to: "*".into(), message: Some("stand-up".into()), deliver_at: Some(AT_MS), ..Schedule::default() };
    let recurring = Schedule {
        to: TargetField::Many(vec!["Bob".into(), "@frontend".into()]),
        message: Some("stand-up".into()),
        deliver_at: Some(0),
        subtype: Some("reminder".into()),
        cron: Some(CRON.into()),
        recurring: Some(true),
        tz: Some("Europe/Berlin".into()),
        misfire: Some(Misfire::Skip),
        clock: Some(ScheduleClock::Mesh),
        ..Schedule::default()
    };
    let sealed = Schedule {
        to: "Bob".into(),
        deliver_at: Some(AT_MS),
        nonce: Some(NONCE.into()),
        ciphertext: Some(SEALED.into()),
        ..Schedule::default()
    };
    let edit = EditScheduled {
        scheduled_id: id(),
        to: Some("*".into()),
        message: Some("stand-up, today in room 2".into()),
        deliver_at: Some(AT_MS),
        cron: Some("@daily".into()),
        tz: Some("UTC".into()),
        misfire: Some(Misfire::All),
        clock: Some(ScheduleClock::Wall),
        nonce: Some(NONCE.into()),
        ciphertext: Some(SEALED.into()),
        expected_version: Some(2),
    };
    let list = ListScheduled { ended: true, everyone: true, limit: Some(20), cursor: Some(format!("{AT_MS}.{ID}")) };
    vec![
        ("", once.into()),
        ("recurring", recurring.into()),
        ("sealed", sealed.into()),
        ("", ListScheduled::default().into()),
        ("full", list.into()),
        ("", CancelScheduled { scheduled_id: id() }.into()),
        ("", PauseScheduled { scheduled_id: id() }.into()),
        ("", ResumeScheduled { scheduled_id: id() }.into()),
        ("", EditScheduled { scheduled_id: id(), ..EditScheduled::default() }.into()),
        ("full", edit.into()),
    ]
}

fn entry() -> ScheduledEntry {
    ScheduledEntry {
        id: id(),
        to: "Bob".into(),
        message: "stand-up".into(),
        deliver_at: AT_MS + 60_000,
        created_at: AT_MS,
        cron: None,
        fired_count: None,
        next_times: vec![],
        state: ScheduleState::Active,
        tz: None,
        misfire: Misfire::FireOnce,
        clock: ScheduleClock::Wall,
        subtype: None,
        by: "Alice".into(),
        nonce: None,
        ciphertext: None,
        missed_count: 0,
        last_fired_at: None,
        last_error: None,
        version: 1,
    }
}

/// Answers.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let full = ScheduledEntry {
        to: TargetField::Many(vec!["Bob".into(), "Carol".into()]),
        message: String::new(),
        cron: Some(CRON.into()),
        fired_count: Some(7),
        next_times: vec![AT_MS + 60_000, AT_MS + 120_000],
        state: ScheduleState::Paused,
        tz: Some("Europe/Berlin".into()),
        misfire: Misfire::All,
        clock: ScheduleClock::Mesh,
        subtype: Some("reminder".into()),
        nonce: Some(NONCE.into()),
        ciphertext: Some(SEALED.into()),
        missed_count: 2,
        last_fired_at: Some(AT_MS),
        last_error: Some("unknown_target: no one here is called `Bob`".into()),
        ..entry()
    };
    let ack = ScheduledAck { scheduled_id: id(), deliver_at: AT_MS, cron: None, next_times: vec![] };
    let recurring = ScheduledAck { cron: Some(CRON.into()), next_times: vec![AT_MS, AT_MS + 60_000], ..ack.clone() };
    vec![
        ("", ack.into()),
        ("recurring", recurring.into()),
        ("", ScheduledList::default().into()),
        ("full", ScheduledList { messages: vec![entry(), full], next: Some("41".into()) }.into()),
        ("", CancelScheduledAck { scheduled_id: id(), ok: true }.into()),
        ("", ScheduledResult { entry: entry() }.into()),
    ]
}
