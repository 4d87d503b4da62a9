//! JSON bodies of the HTTP routes, in both directions: read or refused, and what was read is written so that it reads the same.
#![no_main]

use claudemesh_protocol::error::HttpError;
use claudemesh_protocol::features::enrolment::{
    Claim, Claimed, CreateInvite, CreateMesh, InviteList, Join, Joined, MeshCreated,
};
use claudemesh_protocol::features::members::{GrantsView, MemberList, PatchMember, UpdateGrants};
use claudemesh_protocol::features::meshes::{MeshSettings, MeshView, PatchMesh, PatchSettings, Rejoin, Rejoined};
use claudemesh_protocol::features::presence::{HookSetStatus, HookSetStatusResult};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|bytes: &[u8]| {
    same::<CreateMesh>(bytes);
    same::<CreateInvite>(bytes);
    same::<Join>(bytes);
    same::<Claim>(bytes);
    same::<PatchMember>(bytes);
    same::<PatchSettings>(bytes);
    same::<PatchMesh>(bytes);
    same::<MeshView>(bytes);
    same::<MeshSettings>(bytes);
    same::<Rejoin>(bytes);
    same::<Rejoined>(bytes);
    same::<UpdateGrants>(bytes);
    same::<HookSetStatus>(bytes);
    same::<MeshCreated>(bytes);
    same::<InviteList>(bytes);
    same::<Joined>(bytes);
    same::<Claimed>(bytes);
    same::<HttpError>(bytes);
    same::<GrantsView>(bytes);
    same::<MemberList>(bytes);
    same::<HookSetStatusResult>(bytes);
});

fn same<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(body) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_string(&body).expect("a body can be written");
    let again: T = serde_json::from_str(&written).expect("what we write can be read");
    assert_eq!(serde_json::to_string(&again).expect("a body can be written"), written);
}
